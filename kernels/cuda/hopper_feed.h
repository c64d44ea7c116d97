// The feeding warps of the Hopper kernel: each brings its own part of every stage, weights before
// the previous kernel is done. For sm_90a code only.
#pragma once

#include "kernels/cuda/hopper_block.h"

namespace nibble::cuda {

// Copies are issued by one lane, from addresses that are the same for the whole warp: the copy
// instruction takes uniform registers, and lanes with addresses of their own would take turns.

template <typename S>
__device__ __forceinline__ void FeedCodes(const HopperTask& task, Ring<S> ring) {
  const int64_t panel_bytes = task.work.units * kUnitBytes;
  PieceList list = PiecesOf(task.work, static_cast<int32_t>(blockIdx.x));
  for (Piece piece; NextPiece(task.work, static_cast<int32_t>(blockIdx.x), &list, &piece);) {
    const Tile tile = TileOf<S>(task, piece.tile);
    const FourBitView& weight = task.parts[tile.part].weight;
    const int64_t last = LastPanel(weight) - tile.first_panel;
    const uint8_t* codes = weight.codes + tile.first_panel * panel_bytes + piece.first * kUnitBytes;
#pragma unroll 1
    for (int32_t unit = 0; unit < piece.count; ++unit, codes += kUnitBytes) {
      ring.WaitEmpty();
      const uint32_t full = ring.plan.Full(ring.stage), to = ring.Address();
      if (IsElected()) {
        BarrierArriveExpecting(full, S::kCodesBytes);
#pragma unroll
        for (int panel = 0; panel < S::kPanels; ++panel) {
          BulkCopy(to + static_cast<uint32_t>(panel * kUnitBytes),
                   codes + (panel < last ? panel : last) * panel_bytes, kUnitBytes, full);
        }
      }
      ring.Advance();
    }
  }
}

// Where a tile of x is missing beside the last one, that is taken again.
template <typename S>
__device__ __forceinline__ void FeedX(const HopperTask& task, Ring<S> ring) {
  WaitForPreviousKernel();
  const int64_t tile_bytes = task.work.units * kTileUnitBytes;
  PieceList list = PiecesOf(task.work, static_cast<int32_t>(blockIdx.x));
  for (Piece piece; NextPiece(task.work, static_cast<int32_t>(blockIdx.x), &list, &piece);) {
    const int64_t first = TileOf<S>(task, piece.tile).token_tile * S::kTokenTiles;
    const int64_t last = (task.rows + kTileRows - 1) / kTileRows - 1 - first;
    const char* x = task.tiles + first * tile_bytes + piece.first * kTileUnitBytes;
#pragma unroll 1
    for (int32_t unit = 0; unit < piece.count; ++unit, x += kTileUnitBytes) {
      ring.WaitEmpty();
      const uint32_t full = ring.plan.Full(ring.stage), to = ring.Address() + S::kX;
      if (IsElected()) {
        BarrierArriveExpecting(full, S::kTokenTiles * kXBytes);
#pragma unroll
        for (int tile = 0; tile < S::kTokenTiles; ++tile) {
          BulkCopy(to + static_cast<uint32_t>(tile) * kXBytes,
                   x + (tile < last ? tile : last) * tile_bytes, kXBytes, full);
        }
      }
      ring.Advance();
    }
  }
}

// Four consecutive rows' scales as they lie in memory: fp32, or bytes in .x.
__device__ __forceinline__ uint4 LoadScales(const FourBitView& weight, int64_t at) {
  if (weight.absmax != nullptr) return *reinterpret_cast<const uint4*>(weight.absmax + at);
  return make_uint4(*reinterpret_cast<const uint32_t*>(weight.absmax_codes + at), 0, 0, 0);
}

// One row's double-quantized scale with its two roundings. `group`: the checkpoint's number.
__device__ __forceinline__ uint32_t NestedScale(const FourBitView& weight, uint32_t code,
                                                int64_t group, float offset) {
  return BitsOf(weight.map[code] * weight.nested[group / 256] + offset);
}

// The scales of rows row … row+3 of group `group` of each. Rows past N end up with the last row's
// nested scale; nobody reads them.
__device__ __forceinline__ uint4 ScalesOf(const FourBitView& weight, uint4 raw, int64_t row,
                                          int64_t group, int64_t groups_per_row) {
  if (weight.absmax != nullptr) return raw;
  const int64_t groups = weight.n * groups_per_row;
  const float offset = weight.nested[(groups + 255) / 256];
  uint32_t scales[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t n = row + i < weight.n ? row + i : weight.n - 1;
    scales[i] = NestedScale(weight, raw.x >> (8 * i) & 0xff, n * groups_per_row + group, offset);
  }
  return make_uint4(scales[0], scales[1], scales[2], scales[3]);
}

// The group of `half` of a unit (0 where units are whole groups or parts of one). K's last unit may
// have but one group of 32: the other half meets zeros of x and takes the same scale.
__device__ __forceinline__ int64_t GroupAt(const HopperTask& task, int64_t unit, int half) {
  if (task.group_units > 0) return unit / task.group_units;
  const int64_t group = 2 * unit + half;
  return group < task.groups_per_row ? group : task.groups_per_row - 1;
}

// Four rows of one panel. A few units at a time, so that a load's latency is paid once for them:
// as many as registers allow, more where a unit takes less time.
template <typename S>
__device__ __forceinline__ void FeedScalesOf(const HopperTask& task, Ring<S>* ring,
                                             const FourBitView& weight, const Piece& piece,
                                             int64_t row, uint32_t to) {
  constexpr int kGroups = S::kGroups, kUnits = S::kLarge || kGroups == 2 ? 2 : 4;
  constexpr int kLoads = kUnits * kGroups;
  const int64_t panel = row / kPanelRows * task.groups_per_row * kPanelRows + row % kPanelRows;
#pragma unroll 1
  for (int32_t begin = 0; begin < piece.count; begin += kUnits) {
    uint4 raw[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int32_t unit = begin + i / kGroups;
      if (unit >= piece.count) break;
      const int64_t group = GroupAt(task, piece.first + unit, i % kGroups);
      raw[i] = LoadScales(weight, panel + group * kPanelRows);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int32_t unit = begin + i / kGroups;
      if (unit >= piece.count) break;
      if (i % kGroups == 0) ring->WaitEmpty();
      const int64_t group = GroupAt(task, piece.first + unit, i % kGroups);
      *reinterpret_cast<uint4*>(PointerTo(ring->Address() + to + i % kGroups * S::kRows * 4)) =
          ScalesOf(weight, raw[i], row, group, task.groups_per_row);
      if (i % kGroups < kGroups - 1) continue;
      __syncwarp();
      if (threadIdx.x % 32 == 0) BarrierArrive(ring->plan.Full(ring->stage));
      ring->Advance();
    }
  }
}

// lane: of S::kScaleWarps warps. Each lane has four rows.
template <typename S>
__device__ __forceinline__ void FeedScales(const HopperTask& task, Ring<S> ring, int32_t lane) {
  PieceList list = PiecesOf(task.work, static_cast<int32_t>(blockIdx.x));
  for (Piece piece; NextPiece(task.work, static_cast<int32_t>(blockIdx.x), &list, &piece);) {
    const Tile tile = TileOf<S>(task, piece.tile);
    const FourBitView& weight = task.parts[tile.part].weight;
    const int64_t panel = PanelAt(weight, tile.first_panel + lane / 4);
    FeedScalesOf<S>(task, &ring, weight, piece, panel * kPanelRows + lane % 4 * 4,
                    S::kScales + static_cast<uint32_t>(lane) * 16);
  }
}

}  // namespace nibble::cuda
