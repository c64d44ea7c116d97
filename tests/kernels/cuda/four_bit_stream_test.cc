// The product of up to 8 rows, whose weights go straight to registers.
#include "kernels/cuda/four_bit_stream.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace nibble::cuda
