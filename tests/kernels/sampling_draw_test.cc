// The draw's generator against known answers (tests/oracle/philox_goldens.py).
#include <cstdint>

#include "gtest/gtest.h"
#include "kernels/sampling.h"

namespace nibble {
namespace {

TEST(UniformDraw, IsTheUpper24BitsOfPhilox4x32) {
  struct Known {
    uint64_t seed;
    uint32_t index, position, word;
  };
  constexpr Known kKnown[] = {
      {0x0u, 0u, 0u, 0x6627e8},
      {0x1u, 0u, 0u, 0xe3e806},
      {0x0u, 1u, 0u, 0xf8e4cc},
      {0x0u, 0u, 1u, 0x6ad0c5},
      {0x100000000u, 0u, 0u, 0xfdde3e},
      {0x299f31d0a4093822u, 3u, 4095u, 0x0dfde3},
      {0xffffffffffffffffu, 4294967295u, 4294967295u, 0x4d18d7},
  };
  for (const Known& known : kKnown) {
    const float want = static_cast<float>(known.word) / 16777216.0f;
    EXPECT_EQ(UniformDraw(known.seed, known.index, known.position), want) << known.word;
  }
}

// 16 cells of 4096 draws each: the statistic has mean 15 and standard deviation sqrt(30), so 50 is
// 6.4 deviations off; the draws are fixed, so this never flickers.
TEST(UniformDraw, SpreadsEvenlyOverZeroToOneAlongEveryArgument) {
  for (int argument = 0; argument < 3; ++argument) {
    int cells[16] = {};
    for (uint32_t i = 0; i < 65536; ++i) {
      const float u = argument == 0   ? UniformDraw(i, 5, 9)
                      : argument == 1 ? UniformDraw(5, i, 9)
                                      : UniformDraw(5, 9, i);
      ASSERT_GE(u, 0.0f);
      ASSERT_LT(u, 1.0f);
      ++cells[static_cast<int>(u * 16)];
    }
    double chi_squared = 0;
    for (const int cell : cells) chi_squared += (cell - 4096.0) * (cell - 4096.0) / 4096.0;
    EXPECT_LT(chi_squared, 50) << argument;
  }
}

}  // namespace
}  // namespace nibble
