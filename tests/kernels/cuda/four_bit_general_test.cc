// Exact products against the CPU backend, bit for bit.
#include "kernels/cuda/four_bit_general.h"

#include <gtest/gtest.h>

#include <bit>

#include "kernels/backend.h"
#include "tests/kernels/cuda/four_bit_product_testing.h"

namespace nibble::cuda {
namespace {

class GeneralMatMul : public CudaTest {
 protected:
  // What the CPU backend makes of part `p`, in the same memory layout.
  std::vector<float> OnCpu(const TestProduct& product, size_t p) {
    const TestProduct::HostPart part = product.Host(p);
    const WeightSpec spec = SpecOf(*part.matrix);
    const PackedSize size = cpu_->PackedBytes(spec);
    const Buffer codes = Allocate(size.codes), scales = Allocate(size.scales);
    const Buffer nested = Allocate(size.nested), tables = Allocate(size.tables);
    Weight weight = {spec, codes.data(), scales.data(), nested.data(), tables.data()};
    const absl::Status packed = cpu_->PackFourBit(*part.matrix, &weight);
    EXPECT_TRUE(packed.ok()) << packed;
    std::vector<float> x = product.x(), out = *part.old;
    const VectorView bias = {part.bias, part.bias_type, part.matrix->n};
    const MatMulPart call = {&weight,
                             part.bias == nullptr ? VectorView{} : bias,
                             {out.data(), product.rows(), part.matrix->n, part.stride},
                             part.accumulate};
    cpu_->MatMul({x.data(), product.rows(), product.k(), product.k()}, {&call, 1});
    return out;
  }

 private:
  Buffer Allocate(int64_t bytes) { return std::move(*cpu_->Allocate(bytes)); }
  std::unique_ptr<Backend> cpu_ = std::move(*MakeCpuBackend({.compute = Compute::kFp32}));
};

TEST_F(GeneralMatMul, EqualsTheCpuBackendBitForBit) {
  Dice dice(12);
  for (int i = 0; i < 520; ++i) {
    SetMachineSeed(static_cast<uint64_t>(i));
    WeightSpec spec = RandomFitting(dice, 8);
    if (dice.Chance()) spec.k = dice.Between(1, 300);  // groups straddle rows, most of the time
    std::vector<int64_t> widths;
    for (int64_t p = dice.Between(0, 3) == 0 ? 3 : 1; p > 0; --p) {
      widths.push_back(dice.Between(1, 40));
    }
    const TestProduct product(dice, spec, widths, dice.Between(1, 11));
    // Rows begin at a multiple of 16 bytes, or anywhere.
    const int64_t stride = dice.Chance() ? (spec.k + 3) / 4 * 4 : spec.k + 1;
    std::vector<float> padded(static_cast<size_t>(product.rows() * stride), NAN);
    for (int64_t m = 0; m < product.rows(); ++m) {
      for (int64_t k = 0; k < spec.k; ++k) {
        padded[static_cast<size_t>(m * stride + k)] =
            product.x()[static_cast<size_t>(m * spec.k + k)];
      }
    }
    const DeviceArray<float> x(padded, stride % 4 == 0 ? 16 : 4);
    Tape tape;
    FourBitGeneral(&tape, {x.data(), product.rows(), spec.k, stride}, product.Parts());
    Play(tape);
    for (size_t p = 0; p < product.num_parts(); ++p) {
      const std::vector<float> got = product.Out(p), want = OnCpu(product, p);
      for (size_t at = 0; at < got.size(); ++at) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got[at]), std::bit_cast<uint32_t>(want[at]))
            << "product " << i << " part " << p << " K " << spec.k << " group " << spec.group_size
            << " value " << at << ": got " << got[at] << ", want " << want[at];
      }
    }
  }
}

}  // namespace
}  // namespace nibble::cuda
