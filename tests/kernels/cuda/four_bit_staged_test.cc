// The product whose rows of x are staged in shared memory.
#include "kernels/cuda/four_bit_staged.h"

#include <gtest/gtest.h>

#include "tests/kernels/cuda/four_bit_product_testing.h"

namespace nibble::cuda {
namespace {

using StagedMatMul = CudaTest;

void Multiply(const PreparedRows& x, const FourBitParts& parts, int processors,
              bool batch_invariant, const SplitMemory& split) {
  Tape tape;
  FourBitStaged(&tape, processors, x, parts, batch_invariant, split.data());
  Play(tape);
}

// Mostly few rows: a large product says no more than a small one and takes the emulator longer.
int64_t RandomRows(Dice& dice) {
  switch (dice.Between(0, 15)) {
    case 0:
      return dice.Between(33, 80);
    case 1:
    case 2:
      return dice.Between(17, 32);
    default:
      return dice.Between(1, 16);
  }
}

TEST_F(StagedMatMul, EqualsTheSumsForAnyShapeFormAndNumberOfProcessors) {
  const SplitMemory split;
  Dice dice(6);
  for (int i = 0; i < 520; ++i) {
    SetMachineSeed(static_cast<uint64_t>(i));
    const WeightSpec spec = RandomFitting(dice, 12);
    std::vector<int64_t> widths;
    for (int64_t p = dice.Between(1, 4) == 1 ? 3 : 1; p > 0; --p) {
      widths.push_back(dice.Between(0, 7) == 0 ? dice.Between(200, 300) : dice.Between(1, 70));
    }
    const TestProduct product(dice, spec, widths, RandomRows(dice));
    const PreparedTestRows x(product.x(), product.rows(), product.k());
    const int processors = static_cast<int>(dice.Between(1, 6));
    const bool batch_invariant = dice.Chance();
    Multiply(x.rows(), product.Parts(), processors, batch_invariant, split);
    SCOPED_TRACE(testing::Message()
                 << i << ": M " << product.rows() << " K " << spec.k << " group " << spec.group_size
                 << " nested " << spec.double_quant << " processors " << processors);
    product.ExpectOut(x.kept(), true);
    if (HasFatalFailure()) return;
  }
  split.ExpectCountersAreZero();
}

// Long rows reach the loops that need no checks; many processors make warps share panels.
TEST_F(StagedMatMul, EqualsTheSumsOfLongRows) {
  struct Case {
    int64_t rows, width;
    int processors;
  };
  const SplitMemory split;
  Dice dice(7);
  for (const Case& c : {Case{9, 200, 3}, Case{12, 30, 8}, Case{16, 30, 1}, Case{20, 30, 2},
                        Case{32, 270, 1}, Case{40, 30, 3}}) {
    for (const int32_t group : {32, 64, 256}) {
      const WeightSpec spec = {WeightFormat::kNf4, 0, 48 * kUnitK, group, dice.Chance()};
      const TestProduct product(dice, spec, {c.width}, c.rows);
      const PreparedTestRows x(product.x(), product.rows(), product.k());
      Multiply(x.rows(), product.Parts(), c.processors, false, split);
      SCOPED_TRACE(testing::Message() << "M " << c.rows << " N " << c.width << " group " << group);
      product.ExpectOut(x.kept(), true);
      if (HasFatalFailure()) return;
    }
  }
  split.ExpectCountersAreZero();
}

// One row alone, in the crowd, and beside other parts.
TEST_F(StagedMatMul, GivesARowTheSameBitsWhateverTheNumberOfRows) {
  const SplitMemory split;
  Dice dice(8);
  for (const int64_t rows : {2, 16, 17, 33, 64, 70}) {
    for (const int processors : {1, 5}) {
      const WeightSpec spec = {WeightFormat::kNf4, 0, 64 * dice.Between(1, 30),
                               dice.Chance() ? 64 : 32, dice.Chance()};
      const TestProduct product(dice, spec, {dice.Between(20, 40), 33}, rows);
      const PreparedTestRows x(product.x(), rows, product.k());
      Multiply(x.rows(), product.Parts(), processors, true, split);
      const std::vector<float> crowd = product.Out(1);
      for (const int64_t m : {int64_t{0}, rows / 2, rows - 1}) {
        FourBitParts alone = product.Parts();
        const int64_t stride = alone.parts[1].out_stride;
        alone.parts[0] = alone.parts[1];
        alone.parts[0].out += m * stride;
        alone.num_parts = 1;
        Multiply(x.Row(m), alone, processors, true, split);
        const std::vector<float> row = product.Out(1);
        for (int64_t n = 0; n < alone.parts[0].weight.n; ++n) {
          const size_t at = static_cast<size_t>(m * stride + n);
          ASSERT_EQ(row[at], crowd[at]) << "row " << m << " of " << rows << ", n " << n;
        }
      }
    }
  }
}

TEST_F(StagedMatMul, GivesTheSameBitsInAnyOrderOfBlocksAndThreads) {
  const SplitMemory split;
  Dice dice(9);
  const WeightSpec spec = {WeightFormat::kNf4, 0, 40 * kUnitK, 64, true};
  const TestProduct product(dice, spec, {50, 17}, 20);
  const PreparedTestRows x(product.x(), product.rows(), product.k());
  Multiply(x.rows(), product.Parts(), 6, false, split);
  const std::vector<float> first = product.Out(0);
  ForMachineSeeds(6, [&] {
    Multiply(x.rows(), product.Parts(), 6, false, split);
    EXPECT_EQ(product.Out(0), first);
  });
}

TEST_F(StagedMatMul, OfNoRowsIsNothing) {
  const SplitMemory split;
  Tape tape;
  FourBitStaged(&tape, 4, {}, {}, true, split.data());
  EXPECT_TRUE(tape.empty());
}

}  // namespace
}  // namespace nibble::cuda
