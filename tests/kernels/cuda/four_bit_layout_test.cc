// The grammar of the packed 4-bit matrix.
#include "kernels/cuda/four_bit_layout.h"

#include <gtest/gtest.h>

#include <set>

namespace nibble::cuda {
namespace {

TEST(FourBitLayout, EveryKOfAUnitHasOneFragmentPlace) {
  std::set<int> seen;
  for (int s = 0; s < 4; ++s) {
    for (int p = 0; p < 16; ++p) seen.insert(UnitK(s, p));
  }
  EXPECT_EQ(seen.size(), 64u);
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), 63);
}

TEST(FourBitLayout, AFragmentPairIsOneByteOfTheCheckpoint) {
  for (int s = 0; s < 4; ++s) {
    for (int p = 0; p < 16; p += 2) {
      EXPECT_EQ(UnitK(s, p) % 2, 0);
      EXPECT_EQ(UnitK(s, p + 1), UnitK(s, p) + 1);
    }
  }
}

TEST(FourBitLayout, StepsZeroAndOneCoverTheFirstHalf) {
  for (int p = 0; p < 16; ++p) {
    EXPECT_LT(UnitK(0, p), 32);
    EXPECT_LT(UnitK(1, p), 32);
    EXPECT_GE(UnitK(2, p), 32);
    EXPECT_GE(UnitK(3, p), 32);
  }
}

}  // namespace
}  // namespace nibble::cuda
