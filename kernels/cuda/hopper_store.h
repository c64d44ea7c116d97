// The results of the Hopper kernel: whole tiles go from registers to memory, tiles that blocks
// share by way of their pieces' sums. For sm_90a code only.
#pragma once

#include "kernels/cuda/hopper_compute.h"

namespace nibble::cuda {

__device__ __forceinline__ float BiasAt(const FourBitPart& part, int64_t n) {
  if (part.bias == nullptr) return 0.0f;
  if (part.bias_type == static_cast<int32_t>(DType::kF32)) {
    return static_cast<const float*>(part.bias)[n];
  }
  const uint16_t half = static_cast<const uint16_t*>(part.bias)[n];
  return part.bias_type == static_cast<int32_t>(DType::kF16) ? HalfToFloat(half)
                                                             : Bf16ToFloat(half);
}

// Writes what a lane holds of one of its features for 64 tokens: token first_m + 8·(i / 2) + i % 2
// is d[4·(i / 2) + i % 2 + 2·kHalf]. A warp writes 8 consecutive features of 4 tokens at once:
// whole sectors. Old values are all read before the first is overwritten, to pay their latency
// once.
template <int kHalf>
__device__ __forceinline__ void StoreFeature(const HopperTask& task, const FourBitPart& part,
                                             int64_t first_m, int64_t n, const float (&d)[32]) {
  if (n >= part.weight.n) return;
  float* const out = part.out + first_m * part.out_stride + n;
  const int64_t rows = task.rows - first_m;
  const int left = static_cast<int>(rows < kTileRows ? rows : kTileRows);
  const float bias = BiasAt(part, n);
  float old[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int m = i / 2 * 8 + i % 2;
    old[i] = part.accumulate != 0 && m < left ? out[m * part.out_stride] : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int m = i / 2 * 8 + i % 2;
    if (m >= left) continue;
    const float sum = d[i / 2 * 4 + i % 2 + 2 * kHalf];
    const float value = fmaf(sum, __ldg(task.scale + first_m + m), bias);
    out[m * part.out_stride] = part.accumulate != 0 ? old[i] + value : value;
  }
}
__device__ __forceinline__ void StoreTile(const HopperTask& task, const FourBitPart& part,
                                          int64_t first_m, int64_t n, const float (&d)[32]) {
  StoreFeature<0>(task, part, first_m, n, d);
  StoreFeature<1>(task, part, first_m, n + 8, d);
}

// Where the lane's part of row tile r and token tile t of a tile begins.
struct LanePlace {
  int64_t m;
  int64_t n;
};
template <typename S>
__device__ __forceinline__ LanePlace PlaceOfLane(const Tile& tile, const Lane& lane, int r, int t) {
  return {(int64_t{tile.token_tile} * S::kTokenTiles + t) * kTileRows + lane.lane % 4 * 2,
          int64_t{tile.first_panel + lane.Panel(r)} * kPanelRows + lane.lane / 4};
}

// Slot 2b is of block b's piece that begins inside a tile, 2b+1 of the one that begins a tile:
// thread by thread beside each other, register after register.
template <typename S>
__device__ __forceinline__ float* SlotOf(const HopperTask& task, int64_t block, bool begins_tile) {
  return task.partials + (2 * block + (begins_tile ? 1 : 0)) * S::kSlotSums;
}

// Adds the pieces of a shared tile in the order of k, 64 tokens at a time, and writes them.
template <typename S>
__device__ __forceinline__ void StorePieces(const HopperTask& task, const Tile& tile,
                                            const Lane& lane, int32_t first_block,
                                            int32_t last_block) {
  for (int part = 0; part < S::kRowTiles * S::kTokenTiles; ++part) {
    float total[32] = {};
    for (int32_t block = first_block; block <= last_block; ++block) {
      const float* const slot = SlotOf<S>(task, block, block == first_block) +
                                int64_t{part} * 32 * kComputeThreads + lane.Thread();
#pragma unroll
      for (int i = 0; i < 32; ++i) total[i] += slot[i * kComputeThreads];
    }
    const LanePlace at = PlaceOfLane<S>(tile, lane, part / S::kTokenTiles, part % S::kTokenTiles);
    StoreTile(task, task.parts[tile.part], at.m, at.n, total);
  }
}

// Leaves a piece's sums in its slot; the block that comes last writes the tile. The arrivals are
// zero again then.
template <typename S>
__device__ __forceinline__ void ShareTile(const HopperTask& task, uint32_t flag, const Piece& piece,
                                          const Lane& lane,
                                          const float (&sum)[S::kRowTiles][S::kTokenTiles][32]) {
  float* const slot = SlotOf<S>(task, blockIdx.x, piece.first == 0) + lane.Thread();
#pragma unroll
  for (int i = 0; i < S::kRowTiles * S::kTokenTiles * 32; ++i) {
    slot[i * kComputeThreads] = sum[i / 32 / S::kTokenTiles][i / 32 % S::kTokenTiles][i % 32];
  }
  const int32_t shared_tile = piece.tile - FirstSharedTile(task.work);
  const int32_t begin = shared_tile * task.work.units;
  const int32_t first = ShareOwner(task.work, begin);
  const int32_t last = ShareOwner(task.work, begin + task.work.units - 1);
  uint32_t* const last_flag = reinterpret_cast<uint32_t*>(PointerTo(flag));
  __threadfence();
  NamedBarrier(1, kComputeThreads);
  if (lane.Thread() == 0) {
    const uint32_t before = atomicAdd(&task.arrivals[shared_tile], 1u);
    *last_flag = before == static_cast<uint32_t>(last - first) ? 1 : 0;
    if (*last_flag != 0) task.arrivals[shared_tile] = 0;
  }
  NamedBarrier(1, kComputeThreads);
  if (*last_flag == 0) return;
  __threadfence();
  StorePieces<S>(task, TileOf<S>(task, piece.tile), lane, first, last);
}

template <typename S>
__device__ __forceinline__ void StoreWhole(const HopperTask& task, const Tile& tile,
                                           const Lane& lane,
                                           const float (&sum)[S::kRowTiles][S::kTokenTiles][32]) {
#pragma unroll
  for (int i = 0; i < S::kRowTiles * S::kTokenTiles; ++i) {
    const LanePlace at = PlaceOfLane<S>(tile, lane, i / S::kTokenTiles, i % S::kTokenTiles);
    StoreTile(task, task.parts[tile.part], at.m, at.n, sum[i / S::kTokenTiles][i % S::kTokenTiles]);
  }
}

}  // namespace nibble::cuda
