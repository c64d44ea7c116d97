// Our own products with 16-bit weights: the exact one against the CPU backend bit for bit, the
// tensor cores' against double by a derived bound, both against themselves in any company.
#include "kernels/cuda/sixteen_bit.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/prepare.h"
#include "tests/kernels/cuda/matmul_testing.h"

namespace nibble::cuda {
namespace {

constexpr int kProcessors = 3;  // few, so that small matrices take wide blocks too

enum class Kind { kExact, kMma };

struct Case {
  Kind kind;
  WeightFormat format;
  int64_t m, k;
  std::vector<int64_t> n;  // of each part
  int64_t x_margin = 3;
  int64_t x_alignment = 4;
  bool accumulate = false;
};
std::string Describe(const Case& c) {
  std::string text = absl::StrCat(c.kind == Kind::kExact ? "exact " : "mma ", Name(c.format),
                                  " M=", c.m, " K=", c.k, " margin=", c.x_margin, " N=");
  for (const int64_t n : c.n) absl::StrAppend(&text, n, ",");
  return text;
}

// One grouped product on the device.
class Product {
 public:
  Product(const Case& c, Random& random) : c_(c), x_(c.m, c.k, c.x_margin) {
    for (int64_t m = 0; m < c.m; ++m) {
      for (int64_t k = 0; k < c.k; ++k) x_.At(m, k) = random.Normal();
    }
    for (const int64_t n : c.n) {
      weights_.push_back(ToHalves(c.format, random.Normals(n * c.k)));
      biases_.push_back(RandomBias(n, random));
      old_.emplace_back(c.m, n, random);
    }
  }
  Matrix& x() { return x_; }
  std::vector<uint16_t>& weights(size_t part) { return weights_[part]; }

  std::vector<Matrix> Play(int64_t first, int64_t count) const {
    const DeviceMatrix x(RowsOf(x_, first, count), c_.x_alignment);
    std::vector<DeviceArray<uint16_t>> codes;
    std::vector<DeviceMatrix> outs;
    DenseParts parts = {};
    for (size_t i = 0; i < c_.n.size(); ++i) {
      codes.emplace_back(weights_[i], c_.k % 8 == 0 ? 16 : 2);
      outs.emplace_back(RowsOf(old_[i], first, count), 4);
      const VectorView bias = biases_[i].View();
      parts.parts[parts.num_parts++] = {codes[i].data(),
                                        nullptr,
                                        bias.data,
                                        outs[i].View().data,
                                        outs[i].View().stride,
                                        c_.n[i],
                                        static_cast<int32_t>(bias.dtype),
                                        c_.accumulate ? 1 : 0};
    }
    Append(x.View(), parts);
    std::vector<Matrix> got;
    for (const DeviceMatrix& out : outs) got.push_back(out.Get());
    return got;
  }
  std::vector<Matrix> Play() const { return Play(0, c_.m); }

  // What the CPU backend makes of part i.
  Matrix OnCpu(Backend& cpu, size_t i) const {
    const PackedMatrix packed(cpu, c_.format, c_.n[i], c_.k, weights_[i]);
    Matrix out = old_[i];
    const MatMulPart part = {&packed.weight(), biases_[i].HostView(), out.View(), c_.accumulate};
    cpu.MatMul(x_.View(), {&part, 1});
    return out;
  }

  // Exact values and bounds of part i. x's error, by element: two bf16 values leave 2^-16·|x| of
  // it; prepared rows 2^-11·|x| and 2^-21 of the row's largest (prepare.h). Sums: a product meets
  // the 16 others of its mma and of every later one of its warp, eight or four in 512 k, each of
  // them cut at 2^-23 at worst; then the 8 warps, scale, bias, old value.
  void Expect(const std::vector<Matrix>& got) const {
    for (size_t i = 0; i < c_.n.size(); ++i) {
      for (int64_t m = 0; m < c_.m; ++m) {
        for (int64_t n = 0; n < c_.n[i]; ++n) ExpectOne(i, m, n, got[i].At(m, n));
      }
    }
  }

 private:
  void Append(const Activations& x, const DenseParts& parts) const {
    Tape tape;
    if (c_.kind == Kind::kExact) {
      SixteenBitExact(&tape, c_.format, x, parts);
      return nibble::cuda::Play(tape);
    }
    if (c_.format == WeightFormat::kBf16) {
      Bf16Mma(&tape, kProcessors, x, parts);
      return nibble::cuda::Play(tape);
    }
    const int64_t stride = PreparedStride(x.cols);
    const DeviceArray<uint16_t> values(x.rows * stride);
    const DeviceArray<float> scales(x.rows, 4);
    const PreparedRows rows = {values.data(), scales.data(), x.rows, x.cols, stride};
    PrepareHalf(&tape, x, rows);
    HalfMma(&tape, kProcessors, rows, parts);
    nibble::cuda::Play(tape);
  }
  void ExpectOne(size_t i, int64_t m, int64_t n, float got) const {
    const bool is_bf16 = c_.format == WeightFormat::kBf16;
    double want = biases_[i].At(n) + (c_.accumulate ? double{old_[i].At(m, n)} : 0.0);
    double largest = 0, products = 0, errors = 0;
    for (int64_t k = 0; k < c_.k; ++k) {
      largest = std::max(largest, std::abs(double{x_.At(m, k)}));
    }
    for (int64_t k = 0; k < c_.k; ++k) {
      const uint16_t bits = weights_[i][static_cast<size_t>(n * c_.k + k)];
      const double w = double{is_bf16 ? Bf16ToF32(bits) : F16ToF32(bits)}, x = double{x_.At(m, k)};
      want += x * w;
      products += std::abs(x * w);
      errors += std::abs(w) *
                (is_bf16 ? 0x1p-16 * std::abs(x) : 0x1p-11 * std::abs(x) + 0x1p-21 * largest);
    }
    const double steps = 17.0 * (is_bf16 ? 8 : 4) * static_cast<double>((c_.k + 511) / 512) + 11;
    const double others = std::abs(biases_[i].At(n)) + std::abs(double{old_[i].At(m, n)});
    const double bound = errors + steps * 0x1p-23 * (products + others) + 1e-30;
    ASSERT_LE(std::abs(double{got} - want), bound)
        << "part " << i << " [" << m << "," << n << "]: got " << got << ", want " << want;
  }

  Case c_;
  Matrix x_;
  std::vector<std::vector<uint16_t>> weights_;
  std::vector<DeviceBias> biases_;
  std::vector<Matrix> old_;
};

Case RandomCase(Kind kind, Random& random) {
  Case c = {kind, random.Below(2) == 0 ? WeightFormat::kBf16 : WeightFormat::kF16};
  c.m = random.Below(4) == 0 ? 1 + random.Below(40) : 1 + random.Below(9);
  c.k = 1 + random.Below(random.Below(8) == 0 ? 1300 : 200);
  if (kind == Kind::kMma || random.Below(2) == 0) c.k = RoundUp(c.k, 8);
  const int64_t parts = random.Below(4) == 0 ? 1 + random.Below(4) : 1;
  for (int64_t i = 0; i < parts; ++i) c.n.push_back(1 + random.Below(90));
  c.x_margin = random.Below(2) == 0 ? RoundUp(c.k, 4) - c.k : random.Below(5);
  c.x_alignment = random.Below(2) == 0 ? 16 : 4;
  c.accumulate = random.Below(3) == 0;
  return c;
}

using SixteenBit = CudaTest;

TEST_F(SixteenBit, ExactProductsEqualTheCpuBitForBit) {
  Random random(1);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  for (int i = 0; i < 500; ++i) {
    const Case c = RandomCase(Kind::kExact, random);
    SCOPED_TRACE(Describe(c));
    const Product product(c, random);
    const std::vector<Matrix> got = product.Play();
    for (size_t part = 0; part < c.n.size(); ++part) {
      ExpectSameNumbers(got[part], product.OnCpu(*cpu, part), "part");
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(SixteenBit, TensorCoreProductsAreWithinTheirRoundings) {
  Random random(2);
  for (int i = 0; i < 500; ++i) {
    const Case c = RandomCase(Kind::kMma, random);
    SCOPED_TRACE(Describe(c));
    const Product product(c, random);
    const std::vector<Matrix> got = product.Play();
    product.Expect(got);
    for (const Matrix& out : got) EXPECT_TRUE(out.MarginIsIntact());
    if (HasFatalFailure()) return;
  }
}

TEST_F(SixteenBit, ARowAloneEqualsTheSameRowInAnyCompany) {
  Random random(3);
  for (const Kind kind : {Kind::kExact, Kind::kMma}) {
    for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kF16}) {
      const Case c = {kind, format, 40, 1096, {33, 130}};
      SCOPED_TRACE(Describe(c));
      const Product product(c, random);
      const std::vector<Matrix> all = product.Play();
      for (const auto& [first, count] :
           {std::pair<int64_t, int64_t>{0, 1}, {7, 1}, {39, 1}, {5, 8}, {9, 9}, {3, 33}}) {
        const std::vector<Matrix> some = product.Play(first, count);
        for (size_t part = 0; part < c.n.size(); ++part) {
          ExpectSameNumbers(some[part], RowsOf(all[part], first, count), absl::StrCat(count));
        }
      }
    }
  }
}

TEST_F(SixteenBit, TheMachinesOrderDoesNotShow) {
  Random random(4);
  for (const Kind kind : {Kind::kExact, Kind::kMma}) {
    const Case c = {kind, WeightFormat::kBf16, 9, 200, {70, 5}};
    const Product product(c, random);
    const std::vector<Matrix> want = product.Play();
    ForMachineSeeds(6, [&] {
      const std::vector<Matrix> got = product.Play();
      for (size_t part = 0; part < c.n.size(); ++part) {
        ExpectSameNumbers(got[part], want[part], Describe(c));
      }
    });
  }
}

TEST_F(SixteenBit, InfinitiesAndNaNsStayInTheirRows) {
  Random random(5);
  for (const Kind kind : {Kind::kExact, Kind::kMma}) {
    for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kF16}) {
      const Case c = {kind, format, 5, 64, {20}};
      SCOPED_TRACE(Describe(c));
      Product product(c, random);
      product.x().At(1, 3) = std::numeric_limits<float>::infinity();
      product.x().At(3, 5) = kNan;
      product.weights(0)[2 * 64 + 3] = 0;  // Inf · 0
      const Matrix got = product.Play()[0];
      for (int64_t n = 0; n < 20; ++n) {
        EXPECT_TRUE(std::isfinite(got.At(0, n)) && std::isfinite(got.At(2, n)) &&
                    std::isfinite(got.At(4, n)));
        EXPECT_EQ(std::isinf(got.At(1, n)), n != 2) << n;
        EXPECT_TRUE(std::isnan(got.At(3, n)));
      }
      EXPECT_TRUE(std::isnan(got.At(1, 2)));
    }
  }
}

}  // namespace
}  // namespace nibble::cuda
