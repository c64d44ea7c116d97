// Rows of x as wgmma takes them: fp16 with one power of two per row, laid out so that one bulk copy
// brings 64 rows × 64 k ready for the tensor cores. Knows no weights.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

//   tiles  := tile[ceil(M/64)]                  64 rows each; rows past M are zero
//   tile   := unit[ceil(K/64)]                  64 k each; k past K are zero; 8192 bytes
//   unit   := half step[8]                      2·step + half: 8 of the 16 k of an mma step
//   half step := core matrix[8]                 8 rows each
//   core matrix := row[8] of fp16[8]            128 bytes: wgmma's K-major form without swizzle
// Element p % 8 of half p / 8 of step s is k = UnitK(s, p) of the unit (four_bit_layout.h).
inline constexpr int64_t kTileRows = 64;
inline constexpr int64_t kTileUnitBytes = 8192;
inline constexpr uint32_t kTileHalfStepBytes = 1024;  // from one core matrix to the next along k
inline constexpr uint32_t kTileCoreBytes = 128;       // and along rows

// Plain data without padding. Row m is values · scale[m], a power of two.
struct TiledRows {
  const uint16_t* tiles;  // aligned to 128
  const float* scale;     // [rows]
  int64_t rows;
  int64_t k;
};

constexpr int64_t NumRowTiles(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }
constexpr int64_t TiledRowsBytes(int64_t rows, int64_t k) {
  return NumRowTiles(rows) * ((k + 63) / 64 * kTileUnitBytes + kTileRows * 4);
}

// The largest magnitude of a row falls into [2^14, 2^15) before it is rounded to fp16, so elements
// down to 2^-28 of it keep fp16's 11 bits. A row with an infinity or NaN keeps its values.
// scratch: TiledRowsBytes, aligned to 128; read by launches after this one.
TiledRows PrepareTiles(Tape* tape, const Activations& x, char* scratch);

}  // namespace nibble::cuda
