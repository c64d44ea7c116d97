// How a launch of the tile kernels (four_bit_tiles.inl) is cut into blocks. Host arithmetic, the
// same for the same shapes.
#pragma once

#include <cstdint>

#include "kernels/cuda/four_bit_part.h"

namespace nibble::cuda {

inline constexpr int kTileThreads = 256;
inline constexpr int kTileWarps = 8;

// tile, step: four_bit_tiles.inl.
struct TilePlan {
  int32_t warps_k;
  int32_t steps;  // of a tile
  int32_t block_steps;
  int32_t group_shift;                        // units of a group = 1 << group_shift
  int32_t first_block[kMaxFourBitParts + 1];  // of each part; the last: of none
};

inline int64_t TilesOf(const FourBitView& weight, int warps_k) {
  const int64_t panels = 2 * kTileWarps / warps_k;
  return (NumPanels(weight.n) + panels - 1) / panels;
}

// The fewest steps a block that give no more than max_blocks blocks (at least one a part), each of
// one part; but a block that has less than kLeastSteps is not worth its table.
inline TilePlan PlanTiles(const FourBitParts& parts, int warps_k, int64_t max_blocks) {
  constexpr int32_t kLeastSteps = 4;
  const int64_t units = NumUnits(parts.parts[0].weight.k);
  TilePlan plan = {warps_k, static_cast<int32_t>((units + warps_k - 1) / warps_k), 0, 0, {}};
  while (kUnitK << (plan.group_shift + 1) <= parts.parts[0].weight.group) ++plan.group_shift;
  int64_t all = 0;
  for (int64_t i = 0; i < parts.num_parts; ++i) {
    all += TilesOf(parts.parts[i].weight, warps_k) * plan.steps;
  }
  if (max_blocks < parts.num_parts) max_blocks = parts.num_parts;
  const int64_t even = (all + max_blocks - 1) / max_blocks;
  plan.block_steps = even < kLeastSteps ? kLeastSteps : static_cast<int32_t>(even);
  for (;; ++plan.block_steps) {
    int64_t blocks = 0;
    for (int i = 0; i < kMaxFourBitParts; ++i) {
      plan.first_block[i] = static_cast<int32_t>(blocks);
      if (i >= parts.num_parts) continue;
      const int64_t steps = TilesOf(parts.parts[i].weight, warps_k) * plan.steps;
      blocks += (steps + plan.block_steps - 1) / plan.block_steps;
    }
    plan.first_block[kMaxFourBitParts] = static_cast<int32_t>(blocks);
    if (blocks <= max_blocks) return plan;
  }
}

}  // namespace nibble::cuda
