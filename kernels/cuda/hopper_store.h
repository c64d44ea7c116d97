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

// Writes what a lane holds of 64 features × 64 tokens: token first_m + 8·(i / 4) + i % 2 of feature
// n + 8·(i / 2 % 2) is d[i]. A warp writes 8 consecutive features of 4 tokens at once: whole
// sectors. Old values are all read before the first is overwritten, to pay their latency once.
__device__ __forceinline__ void StoreTile(const HopperTask& task, const FourBitPart& part,
                                          int64_t first_m, int64_t n, const float (&d)[32]) {
  float* const out = part.out + first_m * part.out_stride + n;
  const int left =
      static_cast<int>(task.rows - first_m < kTileRows ? task.rows - first_m : kTileRows);
  const bool inside[2] = {n < part.weight.n, n + 8 < part.weight.n};
  const float bias[2] = {inside[0] ? BiasAt(part, n) : 0.0f,
                         inside[1] ? BiasAt(part, n + 8) : 0.0f};
  float old[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int m = i / 4 * 8 + i % 2, half = i / 2 % 2;
    if (part.accumulate != 0 && m < left && inside[half]) {
      old[i] = out[m * part.out_stride + 8 * half];
    }
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int m = i / 4 * 8 + i % 2, half = i / 2 % 2;
    if (m < left && inside[half]) {
      const float value = fmaf(d[i], __ldg(task.scale + first_m + m), bias[half]);
      out[m * part.out_stride + 8 * half] = part.accumulate != 0 ? old[i] + value : value;
    }
  }
}

// Where the lane's part of row tile r and token tile t of a tile begins.
struct LanePlace {
  int64_t m;
  int64_t n;
};
template <int kTokenTiles>
__device__ __forceinline__ LanePlace PlaceOfLane(const Tile& tile, const Lane& lane, int r, int t) {
  return {(int64_t{tile.token_tile} * kTokenTiles + t) * kTileRows + lane.lane % 4 * 2,
          int64_t{tile.first_panel + lane.Panel(r)} * kPanelRows + lane.lane / 4};
}

// Slot 2b is of block b's piece that begins inside a tile, 2b+1 of the one that begins a tile:
// thread by thread beside each other, register after register.
template <int kTokenTiles>
__device__ __forceinline__ float* SlotOf(const HopperTask& task, int64_t block, bool begins_tile) {
  constexpr int64_t kSlot = kTokenTiles * 64 * kComputeThreads;
  return task.partials + (2 * block + (begins_tile ? 1 : 0)) * kSlot;
}

// Adds the pieces of a shared tile in the order of k, 64 tokens at a time, and writes them.
template <int kTokenTiles>
__device__ __forceinline__ void StorePieces(const HopperTask& task, const Tile& tile,
                                            const Lane& lane, int32_t first_block,
                                            int32_t last_block) {
  for (int part = 0; part < 2 * kTokenTiles; ++part) {
    float total[32] = {};
    for (int32_t block = first_block; block <= last_block; ++block) {
      const float* const slot = SlotOf<kTokenTiles>(task, block, block == first_block) +
                                int64_t{part} * 32 * kComputeThreads + lane.Thread();
#pragma unroll
      for (int i = 0; i < 32; ++i) total[i] += slot[i * kComputeThreads];
    }
    const LanePlace at =
        PlaceOfLane<kTokenTiles>(tile, lane, part / kTokenTiles, part % kTokenTiles);
    StoreTile(task, task.parts[tile.part], at.m, at.n, total);
  }
}

// Leaves a piece's sums in its slot; the block that comes last writes the tile. The arrivals are
// zero again then.
template <int kTokenTiles>
__device__ __forceinline__ void ShareTile(const HopperTask& task, uint32_t flag, const Piece& piece,
                                          const Lane& lane,
                                          const float (&sum)[2][kTokenTiles][32]) {
  float* const slot = SlotOf<kTokenTiles>(task, blockIdx.x, piece.first == 0) + lane.Thread();
#pragma unroll
  for (int i = 0; i < kTokenTiles * 64; ++i) {
    slot[i * kComputeThreads] = sum[i / (kTokenTiles * 32)][i / 32 % kTokenTiles][i % 32];
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
  StorePieces<kTokenTiles>(task, TileOf(task, piece.tile), lane, first, last);
}

template <int kTokenTiles>
__device__ __forceinline__ void StoreWhole(const HopperTask& task, const Tile& tile,
                                           const Lane& lane,
                                           const float (&sum)[2][kTokenTiles][32]) {
#pragma unroll
  for (int i = 0; i < 2 * kTokenTiles; ++i) {
    const LanePlace at = PlaceOfLane<kTokenTiles>(tile, lane, i / kTokenTiles, i % kTokenTiles);
    StoreTile(task, task.parts[tile.part], at.m, at.n, sum[i / kTokenTiles][i % kTokenTiles]);
  }
}

}  // namespace nibble::cuda
