// The tile instructions of AMX in plain C++, as Intel's manual defines them (Software Developer's
// Manual, volume 2: LDTILECFG, TDPBF16PS …); whatever they would fault on ends the test program.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/half.h"

namespace nibble {
namespace {

struct TwinTile {
  int rows;
  uint8_t bytes[16][64];  // rows beyond `rows` are zero
};
struct TwinTiles {
  bool configured;
  TwinTile tiles[8];
};
thread_local TwinTiles twin = {};

inline void Fault(const char* what) {
  std::fprintf(stderr, "tile instruction: %s\n", what);
  std::abort();
}

inline TwinTile& ConfiguredTile(int number) {
  if (!twin.configured) Fault("no tile is configured");
  return twin.tiles[number];
}

inline void TileConfigure(const uint8_t (&rows)[8]) {
  twin = {};
  twin.configured = true;
  for (int i = 0; i < 8; ++i) {
    if (rows[i] < 1 || rows[i] > 16) Fault("a tile has 1 to 16 rows");
    twin.tiles[i].rows = rows[i];
  }
}
inline void TileRelease() { twin = {}; }

template <int kTile>
void TileZero() {
  std::memset(ConfiguredTile(kTile).bytes, 0, sizeof(TwinTile::bytes));
}
template <int kTile>
void TileLoad(const void* p, int64_t stride) {
  TwinTile& tile = ConfiguredTile(kTile);
  std::memset(tile.bytes, 0, sizeof(tile.bytes));
  for (int r = 0; r < tile.rows; ++r) {
    std::memcpy(tile.bytes[r], static_cast<const char*>(p) + r * stride, sizeof(tile.bytes[r]));
  }
}
template <int kTile>
void TileStore(void* p, int64_t stride) {
  const TwinTile& tile = ConfiguredTile(kTile);
  for (int r = 0; r < tile.rows; ++r) {
    std::memcpy(static_cast<char*>(p) + r * stride, tile.bytes[r], sizeof(tile.bytes[r]));
  }
}

template <typename T>
T TileDword(const TwinTile& tile, int row, int i) {
  T value;
  std::memcpy(&value, tile.bytes[row] + 4 * i, sizeof(value));
  return value;
}

// Denormals are zero, with their sign: as operands and as results.
inline float Flushed(float x) { return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float TwinFma(uint32_t a, uint32_t b, float sum) {
  const float x = Flushed(Bf16ToF32(static_cast<uint16_t>(a)));
  const float y = Flushed(Bf16ToF32(static_cast<uint16_t>(b)));
  return Flushed(std::fma(x, y, sum));
}
inline float TwinAdd(float a, float b) { return Flushed(Flushed(a) + Flushed(b)); }

template <int kSum, int kA, int kB>
void CheckProduct() {
  static_assert(kSum != kA && kSum != kB && kA != kB);
  if (ConfiguredTile(kSum).rows != ConfiguredTile(kA).rows) Fault("sums and a have other rows");
  if (ConfiguredTile(kB).rows != 16) Fault("a row of a has 16 dwords, b other rows");
}

template <int kSum, int kA, int kB>
void TileDotBf16() {
  CheckProduct<kSum, kA, kB>();
  TwinTile& sum = ConfiguredTile(kSum);
  const TwinTile &a = ConfiguredTile(kA), &b = ConfiguredTile(kB);
  for (int m = 0; m < sum.rows; ++m) {
    for (int n = 0; n < 16; ++n) {
      float lower = 0, upper = 0;
      for (int k = 0; k < 16; ++k) {
        const uint32_t x = TileDword<uint32_t>(a, m, k), w = TileDword<uint32_t>(b, k, n);
        lower = TwinFma(x & 0xffffu, w & 0xffffu, lower);
        upper = TwinFma(x >> 16, w >> 16, upper);
      }
      const float total = TwinAdd(TileDword<float>(sum, m, n), TwinAdd(lower, upper));
      std::memcpy(sum.bytes[m] + 4 * n, &total, sizeof(total));
    }
  }
}

}  // namespace
}  // namespace nibble
