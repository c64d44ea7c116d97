// What the kernels that multiply packed 4-bit panels on tensor cores have in common: how the work
// is cut, how weights come from memory to A fragments, and how the blocks that share an output add
// up. Device code; knows nothing of where x comes from.
//
//   tile  := 2·warps_n panels of one part, over all K; 8 = warps_n · warps_k warps work on it
//   step  := warps_k neighbouring units of a tile, one for each of the warps that share its panels
//   A block takes block_steps consecutive steps of its part's tiles, so a tile may begin in one
//   block and end in another: such blocks leave partial sums in scratch memory, and the last to
//   arrive adds them in the blocks' order.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/four_bit_out.h"
#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/four_bit_plan.h"
#include "kernels/cuda/prepared_rows.h"

namespace nibble::cuda {

// --- cutting ---

// The steps of a tile that a block does.
struct TileShare {
  int tile;
  int begin;
  int end;
};

// The steps of a block, kDepth at a time and never across the end of a tile. kDepth units of each
// panel are what a warp has under way.
template <int kDepth>
struct TileCursor {
  int tile;
  int begin;  // of this block in the tile
  int step;
  int end;    // of this block in the tile
  int after;  // steps of this block in later tiles

  __device__ __forceinline__ bool AtEnd() const { return step >= end; }
  __device__ __forceinline__ TileShare Share() const { return {tile, begin, end}; }
  // Whether the tile is done.
  __device__ __forceinline__ bool Advance(const TilePlan& plan) {
    step += kDepth;
    if (step < end) return false;
    ++tile;
    begin = step = 0;
    end = after < plan.steps ? after : plan.steps;
    after -= end;
    return true;
  }
};

template <int kDepth>
__device__ __forceinline__ TileCursor<kDepth> FirstOfBlock(const TilePlan& plan, int tiles,
                                                           int block) {
  const int first = block * plan.block_steps, left = tiles * plan.steps - first;
  const int count = left < plan.block_steps ? left : plan.block_steps;
  TileCursor<kDepth> cursor;
  cursor.tile = first / plan.steps;
  cursor.begin = cursor.step = first - cursor.tile * plan.steps;
  cursor.end = cursor.begin + count < plan.steps ? cursor.begin + count : plan.steps;
  cursor.after = count - (cursor.end - cursor.begin);
  return cursor;
}

// The part that a block works on.
struct TilePart {
  int index;
  int first_block;
};
__device__ __forceinline__ TilePart PartOfBlock(const TilePlan& plan, int block) {
  TilePart part = {0, 0};
#pragma unroll
  for (int i = 1; i < kMaxFourBitParts; ++i) {
    if (block >= plan.first_block[i]) part = {i, plan.first_block[i]};
  }
  return part;
}

// A warp's place.
struct TileWarp {
  int lane, row, pair;  // row = lane / 4 and row + 8 of a panel; k pair = lane % 4
  int of_n, of_k;       // among the warps along N, among those that share panels
  int warps_n;
  int units;  // of a panel
  int steps;  // of a tile in which this warp has a unit
};

__device__ __forceinline__ TileWarp ThisWarp(const TilePlan& plan, int64_t k) {
  TileWarp warp;
  warp.lane = static_cast<int>(threadIdx.x % 32);
  warp.row = warp.lane / 4;
  warp.pair = warp.lane % 4;
  warp.warps_n = kTileWarps / plan.warps_k;
  // A value of lane 0, so that the compiler knows it to be the same in all lanes.
  const int index = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);
  warp.of_n = index % warp.warps_n;
  warp.of_k = index / warp.warps_n;
  warp.units = static_cast<int>(NumUnits(k));
  warp.steps = (warp.units - warp.of_k + plan.warps_k - 1) / plan.warps_k;
  return warp;
}

__device__ __forceinline__ int NumTiles(const FourBitView& weight, int warps_n) {
  return static_cast<int>((NumPanels(weight.n) + 2 * warps_n - 1) / (2 * warps_n));
}

// --- the pair table ---

// Entry b, the fp16 values of byte b's two codes (the high one low), stands 32 times in the first
// half of line b of 256 bytes: lane l reads bank l, whatever the data. The other halves of the
// lines are free for other things (FreeLine).
inline constexpr uint32_t kPairTableBytes = 256 * 256;

__device__ __forceinline__ void FillPairTable(char* table, const float* codebook) {
  const uint32_t byte = threadIdx.x;
  const uint32_t entry = PackHalf(codebook[byte >> 4], codebook[byte & 15]);
  const uint4 four = make_uint4(entry, entry, entry, entry);
  uint4* const line = reinterpret_cast<uint4*>(table + byte * 256);
  for (uint32_t i = 0; i < 8; ++i) line[(i + byte) % 8] = four;  // neighbours in other banks
}

__device__ __forceinline__ float* FreeLine(char* table, int line) {
  return reinterpret_cast<float*>(table + line * 256 + 128);
}

// The pair of byte kByte of a word: one PRMT makes the address, byte · 256 + lane · 4.
template <int kByte>
__device__ __forceinline__ uint32_t Pair(const char* table, uint32_t word, uint32_t lane4) {
  return *reinterpret_cast<const uint32_t*>(table + __byte_perm(word, lane4, 0x5504 | kByte << 4));
}

// The A fragments of half a unit: words of row `row` and of row + 8.
__device__ __forceinline__ void DecodeHalf(const char* table, uint32_t low, uint32_t high,
                                           uint32_t lane4, uint32_t (&a)[2][4]) {
  a[0][0] = Pair<0>(table, low, lane4);
  a[0][1] = Pair<0>(table, high, lane4);
  a[0][2] = Pair<1>(table, low, lane4);
  a[0][3] = Pair<1>(table, high, lane4);
  a[1][0] = Pair<2>(table, low, lane4);
  a[1][1] = Pair<2>(table, high, lane4);
  a[1][2] = Pair<3>(table, low, lane4);
  a[1][3] = Pair<3>(table, high, lane4);
}

// --- scales ---

// How scales are held: how many a unit has (2 with groups of 32), and whether as 8-bit codes.
template <int kOfUnit, bool kCodes>
struct ScaleForm {
  static constexpr int kHalves = kOfUnit;
  static constexpr bool kNested = kCodes;
};

// The unit whose scales this lane holds for kDepth steps from `step`, of which `steps` are the
// warp's, at least one.
__device__ __forceinline__ uint32_t UnitOfLane(const TilePlan& plan, const TileWarp& warp, int step,
                                               int steps) {
  const int mine = warp.pair < steps ? warp.pair : steps - 1;
  return static_cast<uint32_t>((step + mine) * plan.warps_k + warp.of_k);
}

// The scales of a warp's two panels for kDepth steps. Lane (row, pair) holds those of rows row and
// row + 8 at step `pair`.
template <typename Form>
struct TileScales {
  static constexpr int kHalves = Form::kHalves;
  const uint8_t* from[2];       // of this lane's row in the panel, group 0
  uint32_t numbers[2][2];       // of both rows' group 0 in the checkpoint; rows past N as the last
  uint32_t last_group;          // of a row
  uint32_t raw[2][2][kHalves];  // of the next steps: fp32, or a code
  float nested[2][2][kHalves];
  float now[2][2][kHalves];

  // For warps that never have a unit: nothing that Decode() could stumble over.
  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int i = 0; i < 4 * kHalves; ++i) {
      raw[i / (2 * kHalves)][i / kHalves % 2][i % kHalves] = 0;
      nested[i / (2 * kHalves)][i / kHalves % 2][i % kHalves] = 0;
    }
  }

  // The panels of a new tile.
  __device__ __forceinline__ void Enter(const FourBitView& w, const TilePlan& plan, int p,
                                        int64_t panel, const TileWarp& warp) {
    const uint32_t groups = GroupsOfRow(w, plan, warp);
    last_group = groups - 1;
    const int64_t at = panel * groups * kPanelRows + warp.row;
    from[p] = Form::kNested ? w.absmax_codes + at : reinterpret_cast<const uint8_t*>(w.absmax + at);
    for (int r = 0; r < 2; ++r) {
      const int64_t n = panel * kPanelRows + warp.row + 8 * r;
      numbers[p][r] = static_cast<uint32_t>(n < w.n ? n : w.n - 1) * groups;
    }
  }
  __device__ __forceinline__ static uint32_t GroupsOfRow(const FourBitView& w, const TilePlan& plan,
                                                         const TileWarp& warp) {
    return kHalves == 2 ? static_cast<uint32_t>(w.k) / 32
                        : static_cast<uint32_t>(warp.units) >> plan.group_shift;
  }

  // `unit`: this lane's of the panels; UnitOfLane().
  __device__ __forceinline__ void Load(const float* nested_absmax, const TilePlan& plan,
                                       uint32_t unit) {
    const uint32_t group = kHalves == 2 ? unit * 2 : unit >> plan.group_shift;
    // The last unit may have but one group: its second half is multiplied by zeros.
    const uint32_t second = kHalves == 2 && group < last_group ? 1 : 0;
#pragma unroll
    for (int i = 0; i < 4 * kHalves; ++i) {
      const int p = i / (2 * kHalves), r = i / kHalves % 2, h = i % kHalves;
      const uint32_t number = group + (h == 1 ? second : 0);
      const uint32_t at = number * 16 + static_cast<uint32_t>(8 * r);
      if constexpr (Form::kNested) {
        raw[p][r][h] = from[p][at];
        nested[p][r][h] = nested_absmax[(numbers[p][r] + number) >> 8];
      } else {
        raw[p][r][h] = reinterpret_cast<const uint32_t*>(from[p])[at];
      }
    }
  }

  // What was loaded becomes what At() gives; the map stands in shared memory.
  __device__ __forceinline__ void Decode(const float* map, float offset) {
#pragma unroll
    for (int i = 0; i < 4 * kHalves; ++i) {
      const int p = i / (2 * kHalves), r = i / kHalves % 2, h = i % kHalves;
      if constexpr (Form::kNested) {
        const float product = map[raw[p][r][h]] * nested[p][r][h];
        now[p][r][h] = product + offset;
      } else {
        now[p][r][h] = FloatOf(raw[p][r][h]);
      }
    }
  }

  __device__ __forceinline__ float At(int p, int r, int h, int step) const {
    return __shfl_sync(~0u, now[p][r][h], step, 4);
  }
};

// What all nested scales of a matrix are offset by.
__device__ __forceinline__ float NestedOffset(const FourBitView& w) {
  return w.nested[((w.n * w.k + w.group - 1) / w.group + 255) / 256];
}

// --- weights ---

// What a warp reads of its two panels, and the steps under way.
template <typename Form, int kDepth>
struct WarpWeights {
  const uint8_t* codes[2];  // of this lane, at the step that is loaded next
  uint4 ring[kDepth][2];
  TileScales<Form> scales;

  // The cursor has come to a tile.
  __device__ __forceinline__ void Enter(const FourBitView& w, const TilePlan& plan,
                                        const TileWarp& warp, const TileCursor<kDepth>& cursor) {
    const int64_t last = NumPanels(w.n) - 1;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      int64_t panel = (int64_t{cursor.tile} * warp.warps_n + warp.of_n) * 2 + p;
      panel = panel < last ? panel : last;
      const int64_t unit = panel * warp.units + cursor.step * plan.warps_k + warp.of_k;
      codes[p] = w.codes + unit * kUnitBytes + warp.lane * 16;
      scales.Enter(w, plan, p, panel, warp);
    }
  }
  // Sends for step i of the ring, `bytes` from where `codes` stand.
  __device__ __forceinline__ void LoadStep(int i, uint32_t bytes) {
#pragma unroll
    for (int p = 0; p < 2; ++p) ring[i][p] = LoadStream128(codes[p] + bytes);
  }
  __device__ __forceinline__ void Advance(uint32_t bytes) {
#pragma unroll
    for (int p = 0; p < 2; ++p) codes[p] += bytes;
  }
  // The A fragments of step i of panel p.
  __device__ __forceinline__ void Decode(const char* table, uint32_t lane4, int i, int p,
                                         uint32_t (&a)[2][2][4]) const {
    DecodeHalf(table, ring[i][p].x, ring[i][p].y, lane4, a[0]);
    DecodeHalf(table, ring[i][p].z, ring[i][p].w, lane4, a[1]);
  }
  __device__ __forceinline__ void ScalesOf(int i, int p, float (&of_rows)[2][Form::kHalves]) const {
#pragma unroll
    for (int j = 0; j < 2 * Form::kHalves; ++j) {
      const int r = j / Form::kHalves, h = j % Form::kHalves;
      of_rows[r][h] = scales.At(p, r, h, i);
    }
  }
};

// How many of the steps from the cursor to the end of the block's share of the tile are this
// warp's.
template <int kDepth>
__device__ __forceinline__ int StepsAt(const TileCursor<kDepth>& cursor, const TileWarp& warp) {
  return (cursor.end < warp.steps ? cursor.end : warp.steps) - cursor.step;
}

// --- sums ---

// One step's weights times x for one panel and 8 rows of x: raw codes in the tensor cores, then the
// groups' scales in fp32. b: x at this lane's 8 k of each half of the unit.
template <int kHalves>
__device__ __forceinline__ void AddUnit(const uint32_t (&a)[2][2][4], const uint4 (&b)[2],
                                        const float (&scales)[2][kHalves], float (&sum)[4]) {
  float raw[4] = {0, 0, 0, 0};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const uint32_t first[2] = {b[h].x, b[h].y}, second[2] = {b[h].z, b[h].w};
    MmaHalf(raw, a[h][0], first);
    MmaHalf(raw, a[h][1], second);
    if (h + 1 < 2 && kHalves == 1) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[i] = fmaf(raw[i], scales[i / 2][kHalves == 2 ? h : 0], sum[i]);
      raw[i] = 0;
    }
  }
}

// A warp's sums of a tile: kTiles times 8 rows of x for each of two panels, as mma.sync leaves
// them: sum[p][j][2·r + c] is that of row `row + 8·r` of panel p and row 8·j + 2·pair + c of x.
template <int kTiles>
using TileSums = float[2][kTiles][4];

template <int kTiles>
__device__ __forceinline__ void ClearSums(TileSums<kTiles>& sums) {
#pragma unroll
  for (int i = 0; i < 8 * kTiles; ++i) sums[i / (4 * kTiles)][i / 4 % kTiles][i % 4] = 0;
}

// Adds the sums of the warps that share panels into those of the first of them, in their order. All
// threads of the block take part.
template <int kTiles>
__device__ __forceinline__ void AddWarps(const TilePlan& plan, const TileWarp& warp, char* table,
                                         TileSums<kTiles>& sums) {
  if (plan.warps_k == 1) return;
  constexpr int kValues = 8 * kTiles;
  __syncthreads();  // the lines' last readers are done
  if (warp.of_k > 0) {
    const int line = ((warp.of_k - 1) * warp.warps_n + warp.of_n) * kValues;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      FreeLine(table, line + i)[warp.lane] = sums[i / (4 * kTiles)][i / 4 % kTiles][i % 4];
    }
  }
  __syncthreads();
  if (warp.of_k > 0) return;
#pragma unroll 1
  for (int k = 1; k < plan.warps_k; ++k) {
    const int line = ((k - 1) * warp.warps_n + warp.of_n) * kValues;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      sums[i / (4 * kTiles)][i / 4 % kTiles][i % 4] += FreeLine(table, line + i)[warp.lane];
    }
  }
}

// Where the blocks that share a tile leave their sums: two places a block, for the tile it finds
// begun and for the one it leaves unfinished.
struct SplitPlace {
  uint32_t* counters;
  float* partials;
  int first_block;  // of this part, among all blocks of the launch
  int block;        // of this part
};

template <int kTiles>
__device__ __forceinline__ float* PartialSums(const SplitPlace& split, const TileWarp& warp,
                                              int block, int place) {
  const int64_t slot = int64_t{split.first_block + block} * 2 + place;
  return split.partials + (slot * warp.warps_n + warp.of_n) * (8 * kTiles * 32) + warp.lane;
}

// Whether `sums` are now those of the whole tile: of a tile that several blocks share only the last
// to arrive gets them, by adding what all have left in the blocks' order.
template <int kTiles>
__device__ __forceinline__ bool AddBlocks(const TilePlan& plan, const TileWarp& warp,
                                          const SplitPlace& split, const TileShare& done,
                                          TileSums<kTiles>& sums) {
  if (done.begin == 0 && done.end == plan.steps) return true;
  constexpr int kValues = 8 * kTiles;
  float* const mine = PartialSums<kTiles>(split, warp, split.block, done.begin > 0 ? 0 : 1);
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    mine[i * 32] = sums[i / (4 * kTiles)][i / 4 % kTiles][i % 4];
  }
  const int first = done.tile * plan.steps / plan.block_steps;
  const int last = ((done.tile + 1) * plan.steps - 1) / plan.block_steps;
  uint32_t* const counter = split.counters + (split.first_block + first) * warp.warps_n + warp.of_n;
  __threadfence();
  __syncwarp();
  uint32_t arrived = 0;
  if (warp.lane == 0) arrived = atomicAdd(counter, 1u);
  if (__shfl_sync(~0u, arrived, 0) != static_cast<uint32_t>(last - first)) return false;
  if (warp.lane == 0) *counter = 0;
  __threadfence();
  ClearSums<kTiles>(sums);
  // Some blocks' sums are sent for together, lest each waits for the one before.
  constexpr int kTogether = kTiles == 1 ? 4 : 1;
#pragma unroll 1
  for (int block = first; block <= last; block += kTogether) {
    float theirs[kTogether][kValues];
#pragma unroll
    for (int j = 0; j < kTogether * kValues; ++j) {
      const int other = block + j / kValues < last ? block + j / kValues : last;
      const volatile float* const from =
          PartialSums<kTiles>(split, warp, other, other == first ? 1 : 0);
      theirs[j / kValues][j % kValues] = from[j % kValues * 32];
    }
#pragma unroll
    for (int j = 0; j < kTogether * kValues; ++j) {
      const int i = j % kValues;
      if (block + j / kValues > last) continue;
      sums[i / (4 * kTiles)][i / 4 % kTiles][i % 4] += theirs[j / kValues][i];
    }
  }
  return true;
}

// Rows [first_m, rows) of x that the sums have, times their powers of two, with bias, to out.
template <int kTiles>
__device__ __forceinline__ void StoreSums(const FourBitPart& part, const float* x_scales,
                                          int64_t rows, int64_t first_m, const TileWarp& warp,
                                          int tile, const TileSums<kTiles>& sums) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int p = i / 2, r = i % 2;
    const int64_t panel = (int64_t{tile} * warp.warps_n + warp.of_n) * 2 + p;
    const int64_t n = panel * kPanelRows + warp.row + 8 * r;
    if (n >= part.weight.n) continue;
    const float bias = BiasOf(part, n);
#pragma unroll
    for (int j = 0; j < 2 * kTiles; ++j) {
      const int64_t m = first_m + 8 * (j / 2) + 2 * warp.pair + j % 2;
      if (m < rows) StoreSum(part, m, n, sums[p][j / 2][2 * r + j % 2] * x_scales[m], bias);
    }
  }
}

// The end of a block's share of a tile.
template <int kTiles>
__device__ __forceinline__ void FinishTile(const TilePlan& plan, const TileWarp& warp,
                                           const SplitPlace& split, const TileShare& done,
                                           const FourBitPart& part, const PreparedRows& x,
                                           int64_t first_m, char* table, TileSums<kTiles>& sums) {
  AddWarps<kTiles>(plan, warp, table, sums);
  if (warp.of_k == 0 && AddBlocks<kTiles>(plan, warp, split, done, sums)) {
    StoreSums<kTiles>(part, x.scales, x.rows, first_m, warp, done.tile, sums);
  }
  ClearSums<kTiles>(sums);
}

}  // namespace nibble::cuda
