// A block of the Hopper kernel: its task, its shared memory, the ring of stages that its feeding
// warps fill and its computing warps empty, and where a tile of its output lies. For .cu files, and
// from SharedPlan on for sm_90a code only.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/hopper_work.h"
#include "kernels/cuda/prepare_tiles.h"

namespace nibble::cuda {

inline constexpr int kComputeThreads = 256;
inline constexpr int kThreads = kComputeThreads + 128;
inline constexpr uint32_t kXBytes = kTileUnitBytes;

// All that a block may have. The pair table must begin at a multiple of 64 KB, and dynamic memory
// begins at 1 KB (the system's own), so stages lie on both sides of the table.
inline constexpr uint32_t kSharedBytes = 227 * 1024;
inline constexpr uint32_t kTableBytes = 65536;
inline constexpr uint32_t kFixedBytes = 1024;  // barriers, then the word kLastFlag
inline constexpr uint32_t kLastFlag = 512;
inline constexpr uint32_t kMaxStages = 16;

// Plain data without padding.
struct HopperTask {
  FourBitPart parts[kMaxFourBitParts];
  const char* tiles;
  const float* scale;
  uint32_t* arrivals;  // of each shared tile
  float* partials;     // [2 · blocks, …]
  int64_t rows;
  int64_t groups_per_row;
  int32_t num_parts;
  int32_t group_units;  // units that share a scale; 0: groups of 32
  HopperWork work;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)

// --- shared memory ---

// What a block computes at a time, and a stage: codes, then tiles of x, then scales.
//   kRowTilesOf: tiles of 64 features of each computing warpgroup, 1 or 2
//   kTokenTilesOf: tiles of 64 tokens, 1 or 2
//   kGroupsOf: scales per unit and feature, 1, or 2 where groups are of 32
template <int kRowTilesOf, int kTokenTilesOf, int kGroupsOf>
struct Shape {
  static constexpr int kRowTiles = kRowTilesOf, kTokenTiles = kTokenTilesOf, kGroups = kGroupsOf;
  static constexpr bool kLarge = kRowTiles * kTokenTiles == 4;
  static constexpr int kPanels = 8 * kRowTiles;
  static constexpr int kRows = 16 * kPanels;
  static constexpr int kScaleWarps = kRowTiles;  // a lane feeds four rows
  static constexpr uint32_t kCodesBytes = kPanels * kUnitBytes;
  static constexpr uint32_t kX = kCodesBytes;
  static constexpr uint32_t kScales = kX + kTokenTiles * kXBytes;
  static constexpr uint32_t kBytes = kScales + kGroups * kRows * 4;
  static constexpr int kSlotSums = kRowTiles * kTokenTiles * 32 * kComputeThreads;
};

struct SharedPlan {
  uint32_t fixed;  // barriers: full and empty of stage 0, of stage 1, …
  uint32_t table;
  uint32_t below;  // the first stages
  uint32_t above;  // the others
  uint32_t num_below;
  uint32_t num_stages;

  __device__ uint32_t Full(uint32_t stage) const { return fixed + 16 * stage; }
  __device__ uint32_t Empty(uint32_t stage) const { return fixed + 16 * stage + 8; }
};

__device__ __forceinline__ SharedPlan PlanShared(uint32_t stage_bytes) {
  const uint32_t begin = SharedAddress(DynamicShared()), end = begin + kSharedBytes;
  SharedPlan plan = {};
  plan.table = (begin + kTableBytes - 1) / kTableBytes * kTableBytes;
  plan.below = begin;
  plan.above = plan.table + kTableBytes;
  const bool fits_below = plan.table - begin >= kFixedBytes;
  plan.fixed = fits_below ? plan.below : plan.above;
  plan.below += fits_below ? kFixedBytes : 0;
  plan.above += fits_below ? 0 : kFixedBytes;
  plan.num_below = (plan.table - plan.below) / stage_bytes;
  plan.num_stages = plan.num_below + (end - plan.above) / stage_bytes;
  if (plan.num_stages > kMaxStages) plan.num_stages = kMaxStages;
  return plan;
}

__device__ __forceinline__ char* PointerTo(uint32_t shared) {
  return DynamicShared() + (shared - SharedAddress(DynamicShared()));
}

// A walk through the ring of stages; every warp has its own.
template <typename S>
struct Ring {
  SharedPlan plan;
  uint32_t stage;
  uint32_t parity;

  __device__ uint32_t Address() const {
    return stage < plan.num_below ? plan.below + stage * S::kBytes
                                  : plan.above + (stage - plan.num_below) * S::kBytes;
  }
  __device__ void WaitFull() const { BarrierWait(plan.Full(stage), parity); }
  // The first time round, stages are empty: the phase before the first counts as complete.
  __device__ void WaitEmpty() const { BarrierWait(plan.Empty(stage), parity ^ 1); }
  __device__ void Advance() {
    if (++stage == plan.num_stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// --- where a tile lies ---

struct Tile {
  int32_t part;
  int32_t first_panel;
  int32_t token_tile;
};

template <typename S>
__device__ __forceinline__ Tile TileOf(const HopperTask& task, int32_t index) {
  const TilePlace place = PlaceOf(task.work, index);
  Tile tile = {0, place.row_tile, place.token_tile};
  for (; tile.part < task.num_parts - 1; ++tile.part) {
    const int32_t tiles =
        static_cast<int32_t>((task.parts[tile.part].weight.n + S::kRows - 1) / S::kRows);
    if (tile.first_panel < tiles) break;
    tile.first_panel -= tiles;
  }
  tile.first_panel *= S::kPanels;
  return tile;
}

// The last row tile may run past the last panel, which is then taken again.
__device__ __forceinline__ int64_t LastPanel(const FourBitView& weight) {
  return (weight.n + kPanelRows - 1) / kPanelRows - 1;
}
__device__ __forceinline__ int64_t PanelAt(const FourBitView& weight, int64_t panel) {
  const int64_t last = LastPanel(weight);
  return panel < last ? panel : last;
}

#endif

}  // namespace nibble::cuda
