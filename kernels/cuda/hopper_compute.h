// The computing warps of the Hopper kernel: decode weights into registers, multiply, scale, add.
// Knows nothing of how stages are filled or where results go. For sm_90a code only.
#pragma once

#include "kernels/cuda/hopper_block.h"

namespace nibble::cuda {

// The pair table: 256 entries, 256 bytes apart, of {code[high nibble], code[low nibble]} in fp16,
// one copy for each lane at 4·lane, so that lanes never meet in a bank.
__device__ __forceinline__ void FillTable(uint32_t table, const float* codebook) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t code = FloatToHalf(codebook[lane % 16]);
  for (uint32_t pair = threadIdx.x / 32; pair < 256; pair += kThreads / 32) {
    const uint32_t first = __shfl_sync(~0u, code, static_cast<int>(pair / 16));
    const uint32_t second = __shfl_sync(~0u, code, static_cast<int>(pair % 16));
    *reinterpret_cast<uint32_t*>(PointerTo(table + pair * 256 + lane * 4)) = first | second << 16;
  }
}

// A fragments of a unit's four mma steps from one lane's 16 bytes (four_bit_layout.h). A byte and
// the lane's place in the table become an address in one byte permutation.
__device__ __forceinline__ void Decode(uint32_t (&a)[4][4], uint32_t codes, uint32_t lane_table) {
  const uint4 loaded = LoadShared128(codes);
  const uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t byte = static_cast<uint32_t>(2 * (step % 2) + i / 2);
      const uint32_t address =
          __byte_perm(words[2 * (step / 2) + i % 2], lane_table, 0x7604u | byte << 4);
      a[step][i] = LoadShared32(address);
    }
  }
}

// Steps [kFirst, kFirst + kCount) of a unit for 64 tokens.
template <int kFirst, int kCount>
__device__ __forceinline__ void IssueSteps(float (&d)[32], const uint32_t (&a)[4][4], uint32_t x) {
  const uint64_t first = MatrixDescriptor(x, kTileHalfStepBytes, kTileCoreBytes);
  WgmmaFence();
#pragma unroll
  for (int step = kFirst; step < kFirst + kCount; ++step) {
    const uint64_t b = first + static_cast<uint64_t>(step) * (2 * kTileHalfStepBytes / 16);
    if (step == kFirst) {
      WgmmaHalfFirst<64>(d, a[step], b);
    } else {
      WgmmaHalf<64>(d, a[step], b);
    }
  }
  WgmmaCommit();
}

// sum += scale of the row · d. Registers 4j and 4j+1 are of the lane's row g, the others of g + 8.
__device__ __forceinline__ void AddScaled(float (&sum)[32], const float (&d)[32], float low,
                                          float high) {
#pragma unroll
  for (int i = 0; i < 32; ++i) sum[i] = fmaf(i % 4 < 2 ? low : high, d[i], sum[i]);
}

// What a compute warp knows of itself.
struct Lane {
  int32_t warpgroup;
  int32_t warp;  // of the warpgroup
  int32_t lane;
  uint32_t table;

  __device__ int32_t Thread() const { return warpgroup * 128 + warp * 32 + lane; }
  // The lane's panel of row tile r (0, 1), among the block's 16.
  __device__ int32_t Panel(int r) const { return 8 * warpgroup + 4 * r + warp; }
  __device__ uint32_t Codes(int r) const {
    return static_cast<uint32_t>(Panel(r) * static_cast<int32_t>(kUnitBytes) + 16 * lane);
  }
  __device__ uint32_t Scale(int r) const {
    return static_cast<uint32_t>((Panel(r) * 16 + lane / 4) * 4);
  }
};

// One row tile of a unit. `meanwhile` runs while the first wgmmas are under way.
template <int kTokenTiles, int kGroups, typename Meanwhile>
__device__ __forceinline__ void MultiplyRows(float (&sum)[kTokenTiles][32],
                                             const uint32_t (&a)[4][4], uint32_t stage,
                                             uint32_t scale, const Meanwhile& meanwhile) {
  using S = Shape<kTokenTiles, kGroups>;
  float low[kGroups], high[kGroups];
#pragma unroll
  for (int half = 0; half < kGroups; ++half) {
    const uint32_t at = stage + S::kScales + static_cast<uint32_t>(half) * kBlockRows * 4 + scale;
    low[half] = FloatOf(LoadShared32(at));
    high[half] = FloatOf(LoadShared32(at + 32));
  }
#pragma unroll
  for (int tile = 0; tile < kTokenTiles; ++tile) {
    const uint32_t x = stage + S::kX + static_cast<uint32_t>(tile) * kXBytes;
    float d[32];
    IssueSteps<0, 4 / kGroups>(d, a, x);
    if (tile == 0) meanwhile();
    WgmmaWait<0>();
    AddScaled(sum[tile], d, low[0], high[0]);
    if constexpr (kGroups == 2) {
      IssueSteps<2, 2>(d, a, x);
      WgmmaWait<0>();
      AddScaled(sum[tile], d, low[1], high[1]);
    }
  }
}

template <int kTokenTiles, int kGroups, typename Ring>
__device__ __forceinline__ void MultiplyPiece(float (&sum)[2][kTokenTiles][32], Ring* ring,
                                              const Lane& lane, int32_t count) {
  uint32_t a[2][4][4];
  ring->WaitFull();
  Decode(a[0], ring->Address() + lane.Codes(0), lane.table);
  for (int32_t unit = 0; unit < count; ++unit) {
    const uint32_t stage = ring->Address(), empty = ring->plan.Empty(ring->stage);
    MultiplyRows<kTokenTiles, kGroups>(sum[0], a[0], stage, lane.Scale(0),
                                       [&] { Decode(a[1], stage + lane.Codes(1), lane.table); });
    ring->Advance();
    MultiplyRows<kTokenTiles, kGroups>(sum[1], a[1], stage, lane.Scale(1), [&] {
      if (unit + 1 < count) {
        ring->WaitFull();
        Decode(a[0], ring->Address() + lane.Codes(0), lane.table);
      }
    });
    __syncwarp();
    if (lane.lane == 0) BarrierArrive(empty);
  }
}

}  // namespace nibble::cuda
