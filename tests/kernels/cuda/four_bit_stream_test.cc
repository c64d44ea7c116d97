// The product of up to 8 rows, whose weights go straight to registers.
#include "kernels/cuda/four_bit_stream.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "tests/kernels/cuda/four_bit_product_testing.h"

namespace nibble::cuda {
namespace {

using StreamMatMul = CudaTest;

void Multiply(const TestProduct& product, const PreparedTestRows& x, int processors,
              const SplitMemory& split) {
  Tape tape;
  FourBitStream(&tape, processors, x.rows(), product.Parts(), split.data());
  Play(tape);
}

TEST_F(StreamMatMul, EqualsTheSumsForAnyShapeFormAndNumberOfProcessors) {
  const SplitMemory split;
  Dice dice(3);
  for (int i = 0; i < 520; ++i) {
    SetMachineSeed(static_cast<uint64_t>(i));
    const WeightSpec spec = RandomFitting(dice, 20);
    std::vector<int64_t> widths;
    for (int64_t p = dice.Between(1, 4) == 1 ? 3 : 1; p > 0; --p) {
      widths.push_back(dice.Between(1, 70));
    }
    const TestProduct product(dice, spec, widths, dice.Between(1, kStreamRows));
    const PreparedTestRows x(product.x(), product.rows(), product.k());
    const int processors = static_cast<int>(dice.Between(1, 6));
    Multiply(product, x, processors, split);
    SCOPED_TRACE(testing::Message()
                 << i << ": K " << spec.k << " group " << spec.group_size << " nested "
                 << spec.double_quant << " processors " << processors);
    product.ExpectOut(x.kept(), true);
    if (HasFatalFailure()) return;
  }
  split.ExpectCountersAreZero();
}

// Long rows reach the loop that needs no checks; one block takes several tiles, and tiles are cut
// between blocks anywhere.
TEST_F(StreamMatMul, EqualsTheSumsOfLongRows) {
  const SplitMemory split;
  Dice dice(4);
  for (const int64_t units : {63, 64, 65, 128, 200}) {
    for (const int32_t group : {32, 64, 128}) {
      WeightSpec spec = {WeightFormat::kNf4, 0, units / 2 * 2 * kUnitK, group, dice.Chance()};
      const TestProduct product(dice, spec, {dice.Between(33, 100), dice.Between(1, 40)},
                                dice.Between(1, kStreamRows));
      const PreparedTestRows x(product.x(), product.rows(), product.k());
      Multiply(product, x, static_cast<int>(dice.Between(1, 3)), split);
      SCOPED_TRACE(testing::Message() << "K " << spec.k << " group " << group);
      product.ExpectOut(x.kept(), true);
      if (HasFatalFailure()) return;
    }
  }
  split.ExpectCountersAreZero();
}

TEST_F(StreamMatMul, GivesTheSameBitsInAnyOrderOfBlocksAndThreads) {
  const SplitMemory split;
  Dice dice(5);
  const WeightSpec spec = {WeightFormat::kNf4, 0, 40 * kUnitK, 64, true};
  const TestProduct product(dice, spec, {50, 17}, 5);
  const PreparedTestRows x(product.x(), product.rows(), product.k());
  Multiply(product, x, 4, split);
  const std::vector<float> first = product.Out(0);
  ForMachineSeeds(8, [&] {
    Multiply(product, x, 4, split);
    EXPECT_EQ(product.Out(0), first);
  });
}

TEST_F(StreamMatMul, OfNoRowsIsNothing) {
  const SplitMemory split;
  Tape tape;
  FourBitStream(&tape, 4, {}, {}, split.data());
  EXPECT_TRUE(tape.empty());
}

// Root of the mean square of a - b.
double Distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// Goal G8 of the kernels' design: bf16 activations, exact weights in fp64 as the truth, and the
// usual way, weights rounded to bf16, as the yardstick.
TEST_F(StreamMatMul, ErrsAFifthOfWhatWeightsRoundedToBf16Err) {
  constexpr int64_t kM = 8, kN = 64, kK = 4096;
  const SplitMemory split;
  Dice dice(6);
  absl::StatusOr<FourBitMatrix> matrix =
      QuantizeFourBit(dice.Normals(kN * kK, 0.02f), kN, kK, {.double_quant = true});
  ASSERT_TRUE(matrix.ok());
  std::vector<float> x = dice.Normals(kM * kK);
  for (float& value : x) value = Bf16ToF32(F32ToBf16(value));
  const PreparedTestRows rows(x, kM, kK);
  const DeviceFourBit weight(*matrix);
  const DeviceArray<float> out(kM * kN);
  FourBitParts parts = {};
  parts.num_parts = 1;
  parts.parts[0].weight = weight.view();
  parts.parts[0].out = out.data();
  parts.parts[0].out_stride = kN;
  Tape tape;
  FourBitStream(&tape, 2, rows.rows(), parts, split.data());
  Play(tape);

  const std::vector<float> w = Dequantized(*matrix), outs = out.Get();
  std::vector<double> truth, rounded;
  for (int64_t i = 0; i < kM * kN; ++i) {
    double exact = 0, with_bf16 = 0;
    for (int64_t k = 0; k < kK; ++k) {
      const float value = w[static_cast<size_t>(i % kN * kK + k)];
      const double xk = double{x[static_cast<size_t>(i / kN * kK + k)]};
      exact += xk * double{value};
      with_bf16 += xk * double{Bf16ToF32(F32ToBf16(value))};
    }
    truth.push_back(exact);
    rounded.push_back(with_bf16);
  }
  const double ratio = Distance({outs.begin(), outs.end()}, truth) / Distance(rounded, truth);
  std::printf("RMS error: %.3f of that of weights rounded to bf16\n", ratio);
  EXPECT_LE(ratio, 0.2);
}

}  // namespace
}  // namespace nibble::cuda
