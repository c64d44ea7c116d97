// How the output tiles of a product are dealt to the blocks of a persistent grid. Whole tiles in
// waves first; the last one to two waves are one row of units (64 k of a tile) cut into equal
// ranges, so no processor idles while others finish. Knows no numbers. For .cu files.
#pragma once

#include <cstdint>

#include "cuda_machine.h"

namespace nibble::cuda {

// Plain data without padding.
struct HopperWork {
  int32_t tiles;        // row_tiles · token_tiles
  int32_t row_tiles;    // along output features, of all parts
  int32_t token_tiles;  // along rows of x
  int32_t units;        // of K: the length of a tile
  int32_t blocks;
  int32_t waves;  // tiles that each block computes whole; fewer than tiles / blocks
};

// Consecutive units of one tile, which one block sums.
struct Piece {
  int32_t tile;
  int32_t first;
  int32_t count;
};

// The tiles past the waves, fewer than two a block: units [0, ShareUnits) in a row, block b's from
// ShareBegin(b).
__device__ __forceinline__ int32_t FirstSharedTile(const HopperWork& work) {
  return work.waves * work.blocks;
}
__device__ __forceinline__ int32_t ShareUnits(const HopperWork& work) {
  return (work.tiles - FirstSharedTile(work)) * work.units;
}
__device__ __forceinline__ int32_t ShareBegin(const HopperWork& work, int64_t block) {
  return static_cast<int32_t>(block * ShareUnits(work) / work.blocks);
}
// The block whose share holds a unit: the last b with floor(b·units / blocks) <= unit.
__device__ __forceinline__ int32_t ShareOwner(const HopperWork& work, int32_t unit) {
  return static_cast<int32_t>(((int64_t{unit} + 1) * work.blocks - 1) / ShareUnits(work));
}

// A block's pieces in order.
struct PieceList {
  int32_t wave;
  int32_t at;
  int32_t end;
};
__device__ __forceinline__ PieceList PiecesOf(const HopperWork& work, int32_t block) {
  return {0, ShareBegin(work, block), ShareBegin(work, block + 1)};
}
__device__ __forceinline__ bool NextPiece(const HopperWork& work, int32_t block, PieceList* list,
                                          Piece* piece) {
  if (list->wave < work.waves) {
    *piece = {list->wave * work.blocks + block, 0, work.units};
    ++list->wave;
    return true;
  }
  if (list->at >= list->end) return false;
  const int32_t first = list->at % work.units;
  const int32_t left = list->end - list->at;
  const int32_t count = work.units - first < left ? work.units - first : left;
  *piece = {FirstSharedTile(work) + list->at / work.units, first, count};
  list->at += count;
  return true;
}

// Tiles that are computed at the same time share rows of x and weights through L2: up to 8 token
// tiles beside each other, then the next row tile; when all row tiles are done, the next 8.
inline constexpr int32_t kTokenTilesTogether = 8;
struct TilePlace {
  int32_t row_tile;
  int32_t token_tile;
};
__device__ __forceinline__ TilePlace PlaceOf(const HopperWork& work, int32_t tile) {
  const int32_t band_tiles = kTokenTilesTogether * work.row_tiles;
  const int32_t first = tile / band_tiles * kTokenTilesTogether;
  const int32_t left = work.token_tiles - first;
  const int32_t width = left < kTokenTilesTogether ? left : kTokenTilesTogether;
  return {tile % band_tiles / width, first + tile % band_tiles % width};
}

}  // namespace nibble::cuda
