// Where a tile's keys and values lie in shared memory, how they come from pages and how a warp's
// matrices are read from there. Knows no arithmetic.
#pragma once

#include "kernels/cuda/attention_pages.h"

namespace nibble::cuda {

inline constexpr int kTileRows = 16;
inline constexpr int kTilePages = kTileSlots / kSlots;
inline constexpr int kWarpLanes = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

// A tile's keys, or its values, in shared memory. Rows of 16 bytes ("chunks") are permuted so that
// the eight rows of a matrix that ldmatrix reads lie in different banks.
//   transposed keys := page[4], page := chunk[2·kBucket]      chunk 2d + h: K[d] of slots 8h …
//   rows            := slot[64], slot := chunk[kBucket / 8]   chunk j: d = 8j …
// kBucket: head_dim rounded up to 64, 128 or 256.
template <int kBucket>
struct TileLayout {
  static constexpr uint32_t kBytes = kTileSlots * kBucket * 2;
  static constexpr uint32_t kPageBytes = kSlots * kBucket * 2;

  static __device__ __forceinline__ uint32_t KeyChunk(int chunk) {
    return static_cast<uint32_t>(chunk ^ (chunk >> 3 & 1)) * 16;
  }
  static __device__ __forceinline__ uint32_t RowChunk(int slot, int chunk) {
    return static_cast<uint32_t>(slot * (kBucket / 8) + (chunk ^ (slot & 7))) * 16;
  }
  // 16 slots and 16 values of d further per page and column, from the address of a row's chunk 0 or
  // 1 in the tile's first page. Tiles are aligned to 128 bytes.
  static __device__ __forceinline__ uint32_t RowMatrix(uint32_t row, int page, int column) {
    return (row ^ static_cast<uint32_t>(column % 4) * 32) +
           static_cast<uint32_t>(column / 4) * 128 + static_cast<uint32_t>(page) * kPageBytes;
  }
};

// The kernels compute with kBucket values a head, whose count the compiler knows. Smaller heads are
// filled up with the zeros that nothing overwrites. For all threads.
__device__ __forceinline__ void FillWithZeros(char* shared, uint32_t bytes) {
  for (uint32_t i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
    reinterpret_cast<uint4*>(shared)[i] = {0, 0, 0, 0};
  }
  __syncthreads();
}

// --- from pages to shared memory, 16 bytes at a time; what lies past `slots` becomes zeros ---
// kWarps warps share a page; this is number `warp` of them.

// Keys share chunks with slots that were never written; whoever reads them masks them.
template <int kBucket, int kWarps>
__device__ __forceinline__ void CopyKeys(uint32_t shared, const char* keys, int head_dim, int slots,
                                         int warp) {
  constexpr int kStep = kWarps * kWarpLanes;
  const int first = warp * kWarpLanes + static_cast<int>(threadIdx.x) % kWarpLanes;
  const bool valid = (first & 1) * 8 < slots;
  const uint32_t to = shared + TileLayout<kBucket>::KeyChunk(first);
#pragma unroll 4
  for (int chunk = 0; chunk < 2 * kBucket; chunk += kStep) {
    if (first + chunk >= 2 * head_dim) break;
    CopyAsync16(to + static_cast<uint32_t>(chunk) * 16, keys + (first + chunk) * 16, valid);
  }
}

template <int kBucket, int kWarps>
__device__ __forceinline__ void CopyValues(uint32_t shared, const char* values, int head_dim,
                                           int slots, int warp) {
  constexpr int kRowLanes = kBucket / 8;
  constexpr int kRows = kWarpLanes / kRowLanes;  // of a warp at a time
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int column = lane % kRowLanes;
  if (8 * column >= head_dim) return;
  const int first = warp * kRows + lane / kRowLanes;
#pragma unroll 4
  for (int row = 0; row < kSlots; row += kWarps * kRows) {
    const int slot = first + row;
    CopyAsync16(shared + TileLayout<kBucket>::RowChunk(slot, column),
                values + (slot * head_dim / 8 + column) * 16, slot < slots);
  }
}

// --- from shared memory to a warp's B fragments ---

// The lane's part of 16 keys × 16 values of d (d = 16·step …): of transposed pages at `shared`.
template <int kBucket>
class PageKeys {
 public:
  explicit __device__ __forceinline__ PageKeys(uint32_t shared) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    const int d = lane / 8 % 2 * 8 + lane % 8;
    lane_ = shared + TileLayout<kBucket>::KeyChunk(2 * d + lane / 16);
  }
  __device__ __forceinline__ void Load(int page, int step, uint32_t (&keys)[4]) const {
    LoadMatrix4Transposed(keys, lane_ + static_cast<uint32_t>(step) * 512 +
                                    static_cast<uint32_t>(page) * TileLayout<kBucket>::kPageBytes);
  }

 private:
  uint32_t lane_;
};
// The same of keys in rows.
template <int kBucket>
class RowKeys {
 public:
  explicit __device__ __forceinline__ RowKeys(uint32_t shared) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    lane_ = shared + TileLayout<kBucket>::RowChunk(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  }
  __device__ __forceinline__ void Load(int page, int step, uint32_t (&keys)[4]) const {
    LoadMatrix4(keys, TileLayout<kBucket>::RowMatrix(lane_, page, step));
  }

 private:
  uint32_t lane_;
};

}  // namespace nibble::cuda
