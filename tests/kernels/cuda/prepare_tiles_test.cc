// Rows of x as wgmma takes them: every value in its place, with its power of two.
#include "kernels/cuda/prepare_tiles.h"

#include <cmath>
#include <limits>

#include "kernels/half.h"
#include "tests/kernels/cuda/four_bit_fixture.h"

namespace nibble::cuda {
namespace {

struct Prepared {
  std::vector<uint16_t> tiles;
  std::vector<float> scale;
  int64_t units = 0;

  uint16_t At(int64_t m, int64_t unit, int step, int p) const {
    const int64_t core = ((m / 64 * units + unit) * 8 + 2 * step + p / 8) * 8 + m % 64 / 8;
    return tiles[static_cast<size_t>(core * 64 + m % 8 * 8 + p % 8)];
  }
};

// x: [rows, stride], of which k columns count.
Prepared Prepare(const std::vector<float>& x, int64_t rows, int64_t k, int64_t stride) {
  DeviceArray<float> device_x(x, 4);
  DeviceArray<char> scratch(TiledRowsBytes(rows, k), 128);
  Tape tape;
  const TiledRows tiled = PrepareTiles(&tape, {device_x.data(), rows, k, stride}, scratch.data());
  Play(tape);
  EXPECT_EQ(tiled.rows, rows);
  EXPECT_EQ(tiled.k, k);
  Prepared prepared;
  prepared.units = (k + 63) / 64;
  prepared.tiles.resize(static_cast<size_t>(NumRowTiles(rows) * prepared.units * 64 * 64));
  prepared.scale.resize(static_cast<size_t>(rows));
  CopyNow(prepared.tiles.data(), tiled.tiles, static_cast<int64_t>(prepared.tiles.size()) * 2);
  CopyNow(prepared.scale.data(), tiled.scale, rows * 4);
  return prepared;
}

class PrepareTilesTest : public CudaTest {};

TEST_F(PrepareTilesTest, EveryValueHasItsPlaceAndTheRestIsZero) {
  Random random(1);
  for (int round = 0; round < 40; ++round) {
    SetMachineSeed(static_cast<uint64_t>(round));
    const int64_t rows = Uniform(random, 1, 130), k = Uniform(random, 1, 300);
    const int64_t stride = k + Uniform(random, 0, 3);
    std::vector<float> x(static_cast<size_t>((rows - 1) * stride + k));
    for (float& value : x) value = std::ldexp(UniformFloat(random, -1, 1), round - 20);
    const Prepared prepared = Prepare(x, rows, k, stride);
    for (int64_t i = 0; i < NumRowTiles(rows) * 64 * prepared.units * 64; ++i) {
      const int p = static_cast<int>(i % 16), step = static_cast<int>(i / 16 % 4);
      const int64_t unit = i / 64 % prepared.units, m = i / 64 / prepared.units;
      const int64_t at = unit * 64 + UnitK(step, p);
      float want = 0;
      if (m < rows && at < k) {
        want = x[static_cast<size_t>(m * stride + at)] / prepared.scale[static_cast<size_t>(m)];
      }
      ASSERT_EQ(prepared.At(m, unit, step, p), F32ToF16(want)) << "row " << m << " k " << at;
    }
  }
}

TEST_F(PrepareTilesTest, ARowsLargestComesBetweenTwoPowersBelowTheEndOfHalf) {
  for (int exponent = -149; exponent < 128; exponent += 3) {
    const float largest = std::ldexp(exponent < -126 ? 1.0f : 1.75f, exponent);
    const Prepared prepared = Prepare({largest, -largest / 2}, 1, 2, 2);
    const float scale = prepared.scale[0];
    int power = 0;
    ASSERT_EQ(std::frexp(scale, &power), 0.5f);
    ASSERT_TRUE(std::isnormal(scale));
    if (exponent >= -112) {
      ASSERT_EQ(F16ToF32(prepared.At(0, 0, 0, 0)), 1.75f * 16384.0f) << exponent;
    }
    ASSERT_EQ(F16ToF32(prepared.At(0, 0, 0, 0)) * scale, largest);
  }
}

TEST_F(PrepareTilesTest, RowsWithoutAFiniteLargestKeepWhatTheyAre) {
  const float inf = std::numeric_limits<float>::infinity();
  const Prepared prepared = Prepare({inf, 3.0f, std::nanf(""), 3.0f, 0.0f, 0.0f}, 3, 2, 2);
  EXPECT_EQ(prepared.scale[0], 1.0f);
  EXPECT_EQ(F16ToF32(prepared.At(0, 0, 0, 0)), inf);
  EXPECT_EQ(F16ToF32(prepared.At(0, 0, 0, 1)), 3.0f);
  EXPECT_TRUE(std::isnan(F16ToF32(prepared.At(1, 0, 0, 0))));
  EXPECT_EQ(F16ToF32(prepared.At(1, 0, 0, 1)), 3.0f);
  EXPECT_EQ(prepared.At(2, 0, 0, 0), 0);
  EXPECT_TRUE(std::isnormal(prepared.scale[2]));
}

}  // namespace
}  // namespace nibble::cuda
