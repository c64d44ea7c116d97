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
  int32_t row_tiles;  // of the warpgroup

  // The lane's panel of row tile r, among the block's.
  __device__ int32_t Panel(int r) const { return 4 * (row_tiles * warpgroup + r) + warp; }
  __device__ uint32_t Codes(int r) const {
    return static_cast<uint32_t>(Panel(r) * static_cast<int32_t>(kUnitBytes) + 16 * lane);
  }
  __device__ uint32_t Scale(int r) const {
    return static_cast<uint32_t>((Panel(r) * 16 + lane / 4) * 4);
  }
};

// One row tile of a unit. `meanwhile` runs while the first wgmmas are under way.
template <typename S, typename Meanwhile>
__device__ __forceinline__ void MultiplyRows(float (&sum)[S::kTokenTiles][32],
                                             const uint32_t (&a)[4][4], uint32_t stage,
                                             uint32_t scale, const Meanwhile& meanwhile) {
  float low[S::kGroups], high[S::kGroups];
#pragma unroll
  for (int half = 0; half < S::kGroups; ++half) {
    const uint32_t at = stage + S::kScales + static_cast<uint32_t>(half) * S::kRows * 4 + scale;
    low[half] = FloatOf(LoadShared32(at));
    high[half] = FloatOf(LoadShared32(at + 32));
  }
#pragma unroll
  for (int tile = 0; tile < S::kTokenTiles; ++tile) {
    const uint32_t x = stage + S::kX + static_cast<uint32_t>(tile) * kXBytes;
    float d[32];
    IssueSteps<0, 4 / S::kGroups>(d, a, x);
    if (tile == 0) meanwhile();
    WgmmaWait<0>();
    AfterWgmma(d);
    AddScaled(sum[tile], d, low[0], high[0]);
    if constexpr (S::kGroups == 2) {
      IssueSteps<2, 2>(d, a, x);
      WgmmaWait<0>();
      AfterWgmma(d);
      AddScaled(sum[tile], d, low[1], high[1]);
    }
  }
}

// A unit whose first row tile is decoded in `a`; `b` takes the second's and then `a` the next
// unit's, or where there is but one row tile `b` takes the next unit's.
template <typename S>
__device__ __forceinline__ void MultiplyUnit(float (&sum)[S::kRowTiles][S::kTokenTiles][32],
                                             uint32_t (&a)[4][4], uint32_t (&b)[4][4],
                                             Ring<S>* ring, const Lane& lane, bool more) {
  // All lanes know the address. Taken from one of them the compiler knows it to be uniform and
  // keeps wgmma's descriptors where wgmma wants them: 30 instructions less a unit.
  const uint32_t stage = __shfl_sync(~0u, ring->Address(), 0);
  const uint32_t empty = ring->plan.Empty(ring->stage);
  const auto decode_next = [&](uint32_t(&next)[4][4]) {
    if (!more) return;
    ring->WaitFull();
    Decode(next, ring->Address() + lane.Codes(0), lane.table);
  };
  if constexpr (S::kRowTiles == 2) {
    MultiplyRows<S>(sum[0], a, stage, lane.Scale(0),
                    [&] { Decode(b, stage + lane.Codes(1), lane.table); });
    ring->Advance();
    MultiplyRows<S>(sum[1], b, stage, lane.Scale(1), [&] { decode_next(a); });
  } else {
    ring->Advance();
    MultiplyRows<S>(sum[0], a, stage, lane.Scale(0), [&] { decode_next(b); });
  }
  __syncwarp();
  if (lane.lane == 0) BarrierArrive(empty);
}

template <typename S>
__device__ __forceinline__ void MultiplyPiece(float (&sum)[S::kRowTiles][S::kTokenTiles][32],
                                              Ring<S>* ring, const Lane& lane, int32_t count) {
  uint32_t a[4][4], b[4][4];
  ring->WaitFull();
  Decode(a, ring->Address() + lane.Codes(0), lane.table);
  if constexpr (S::kRowTiles == 2) {
    for (int32_t unit = 1; unit <= count; ++unit) {
      MultiplyUnit<S>(sum, a, b, ring, lane, unit < count);
    }
  } else {
    for (int32_t unit = 1; unit <= count; unit += 2) {
      MultiplyUnit<S>(sum, a, b, ring, lane, unit < count);
      if (unit == count) break;
      MultiplyUnit<S>(sum, b, a, ring, lane, unit + 1 < count);
    }
  }
}

}  // namespace nibble::cuda
