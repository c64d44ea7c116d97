// The tile instructions of AMX in plain C++, as Intel's manual defines them (Software Developer's
// Manual, volume 2: LDTILECFG, TDPBF16PS, TDPBSSD …); whatever they would fault on ends the test
// program.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/half.h"

namespace nibble {
namespace {

struct TileShape {
  int64_t rows, row_bytes;
};
struct TwinTile {
  TileShape shape;
  uint8_t bytes[16][64];  // zero beyond its shape
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

inline void TileConfigure(const TileShape (&shapes)[8]) {
  twin = {};
  twin.configured = true;
  for (int i = 0; i < 8; ++i) {
    if (shapes[i].rows < 1 || shapes[i].rows > 16) Fault("a tile has 1 to 16 rows");
    if (shapes[i].row_bytes < 1 || shapes[i].row_bytes > 64) Fault("rows have 1 to 64 bytes");
    twin.tiles[i].shape = shapes[i];
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
  for (int64_t r = 0; r < tile.shape.rows; ++r) {
    std::memcpy(tile.bytes[r], static_cast<const char*>(p) + r * stride,
                static_cast<size_t>(tile.shape.row_bytes));
  }
}
template <int kTile>
void TileStore(void* p, int64_t stride) {
  const TwinTile& tile = ConfiguredTile(kTile);
  for (int64_t r = 0; r < tile.shape.rows; ++r) {
    std::memcpy(static_cast<char*>(p) + r * stride, tile.bytes[r],
                static_cast<size_t>(tile.shape.row_bytes));
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

// sum[m][n] = of(sum[m][n], m, n, dwords of a row of a).
template <typename T, int kSum, int kA, int kB, typename Of>
void EachSum(Of of) {
  static_assert(kSum != kA && kSum != kB && kA != kB);
  TwinTile& sum = ConfiguredTile(kSum);
  const TwinTile &a = ConfiguredTile(kA), &b = ConfiguredTile(kB);
  if (sum.shape.rows != a.shape.rows) Fault("sums and a have other rows");
  if (sum.shape.row_bytes != b.shape.row_bytes) Fault("sums and b have other columns");
  if (a.shape.row_bytes != 4 * b.shape.rows) Fault("a has other columns than b has rows");
  for (int m = 0; m < sum.shape.rows; ++m) {
    for (int n = 0; n < sum.shape.row_bytes / 4; ++n) {
      const T result = of(TileDword<T>(sum, m, n), m, n, static_cast<int>(b.shape.rows));
      std::memcpy(sum.bytes[m] + 4 * n, &result, sizeof(result));
    }
  }
}

template <int kSum, int kA, int kB>
void TileDotBf16() {
  const TwinTile &a = ConfiguredTile(kA), &b = ConfiguredTile(kB);
  EachSum<float, kSum, kA, kB>([&](float sum, int m, int n, int dwords) {
    float lower = 0, upper = 0;
    for (int k = 0; k < dwords; ++k) {
      const uint32_t x = TileDword<uint32_t>(a, m, k), w = TileDword<uint32_t>(b, k, n);
      lower = TwinFma(x & 0xffffu, w & 0xffffu, lower);
      upper = TwinFma(x >> 16, w >> 16, upper);
    }
    return TwinAdd(sum, TwinAdd(lower, upper));
  });
}

template <int kSum, int kA, int kB>
void TileDotBytes() {
  const TwinTile &a = ConfiguredTile(kA), &b = ConfiguredTile(kB);
  EachSum<uint32_t, kSum, kA, kB>([&](uint32_t sum, int m, int n, int dwords) {
    for (int i = 0; i < 4 * dwords; ++i) {
      const int x = static_cast<int8_t>(a.bytes[m][i]);
      const int w = static_cast<int8_t>(b.bytes[i / 4][4 * n + i % 4]);
      sum += static_cast<uint32_t>(x * w);
    }
    return sum;
  });
}

}  // namespace
}  // namespace nibble
