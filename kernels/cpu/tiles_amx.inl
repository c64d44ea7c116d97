// The tile instructions of AMX. In assembly, because GCC 12's own macros neither take a template's
// number for a tile nor tell the compiler that they read memory. Between TileConfigure and
// TileRelease a thread owns 8 tiles of up to 16 rows of 64 bytes; released, they cost a context
// switch nothing.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nibble {
namespace {

// At most 16 rows of at most 64 bytes.
struct TileShape {
  int64_t rows, row_bytes;
};

// What `ldtilecfg` reads.
struct TileShapes {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileShapes) == 64);

// All tiles become zero.
inline void TileConfigure(const TileShape (&tiles)[8]) {
  TileShapes shapes = {};
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = static_cast<uint16_t>(tiles[i].row_bytes);
    shapes.rows[i] = static_cast<uint8_t>(tiles[i].rows);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
}
inline void TileRelease() { __asm__ volatile("tilerelease"); }

template <int kTile>
inline void TileZero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
// Row i lies at p + i · stride, in bytes.
template <int kTile>
inline void TileLoad(const void* p, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline void TileStore(void* p, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
}
// sum[m][n] += Σ_i a[m][i] · b[i][n] over dwords i of two bf16.
template <int kSum, int kA, int kB>
inline void TileDotBf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

// sum[m][n] += Σ_i a[m][i] · b[i][n] over dwords i of four signed bytes, in 32 bits.
template <int kSum, int kA, int kB>
inline void TileDotBytes() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

}  // namespace
}  // namespace nibble
