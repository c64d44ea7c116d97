// wgmma with weights as its A operand, decoded from 4 bits straight into registers, and x as B from
// shared memory. A block is one warpgroup that feeds a ring of stages (one unit of 64 k each:
// codes, tiles of x, scales) and two that compute: each 64·R output features × 64·T tokens, in
// fp32. Knows the packed layout and nothing of checkpoints.
//
// What a unit costs in clocks of one processor; derived and counted in the SASS, not run on a GPU:
//
//   R T  features × tokens  tensor cores  shared memory  issue slots  bytes from L2
//   2 2      256 × 128          1024          1056           628         25 KB
//   2 1      256 × 64            512           736           424         17 KB
//   1 2      128 × 128           512           592           382         21 KB
//   1 1      128 × 64            256           400           268         13 KB
//
// Tensor cores: 2048 FMA a clock. Shared memory, 128 bytes a clock, for R = T = 2: x read by wgmma
// 512 (B is read once per 64 features), pair look-ups 256, codes in and out 128, x in 128, scales
// 32. Issue slots: two computing warps to a scheduler. A computing warpgroup's own chain is, for
// each 64 × 64, 4 wgmma (128) + drain (40) + scaling (40): 830 of 1024 at R = T = 2; the other
// warpgroup fills the gaps, and decoding hides under the first wgmma. A tile of 128 × 256 would
// need half the look-ups but 36 KB from L2.
#include "cuda_machine.h"
#include "kernels/cuda/four_bit_hopper.h"
#include "kernels/cuda/hopper_block.h"
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#include "kernels/cuda/hopper_compute.h"
#include "kernels/cuda/hopper_feed.h"
#include "kernels/cuda/hopper_store.h"
#endif

namespace nibble::cuda {
namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)

template <typename S>
__device__ __forceinline__ void Compute(const HopperTask& task, Ring<S> ring, const Lane& lane) {
  WaitForPreviousKernel();
  PieceList list = PiecesOf(task.work, static_cast<int32_t>(blockIdx.x));
  for (Piece piece; NextPiece(task.work, static_cast<int32_t>(blockIdx.x), &list, &piece);) {
    float sum[S::kRowTiles][S::kTokenTiles][32];
#pragma unroll
    for (int i = 0; i < S::kRowTiles * S::kTokenTiles * 32; ++i) {
      sum[i / 32 / S::kTokenTiles][i / 32 % S::kTokenTiles][i % 32] = 0.0f;
    }
    MultiplyPiece<S>(sum, &ring, lane, piece.count);
    if (piece.count < task.work.units) {
      ShareTile<S>(task, ring.plan.fixed + kLastFlag, piece, lane, sum);
    } else {
      StoreWhole<S>(task, TileOf<S>(task, piece.tile), lane, sum);
    }
  }
}

template <typename S>
__device__ __forceinline__ void RunBlock(const HopperTask& task) {
  const SharedPlan plan = PlanShared(S::kBytes);
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  const int32_t warp = __shfl_sync(~0u, static_cast<int32_t>(threadIdx.x / 32), 0);
  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < plan.num_stages; ++stage) {
      BarrierInit(plan.Full(stage), 2 + S::kScaleWarps);     // the feeding warps
      BarrierInit(plan.Empty(stage), kComputeThreads / 32);  // the computing ones
    }
    BarrierInitFence();
  }
  FillTable(plan.table, task.parts[0].weight.codebook);
  __syncthreads();
  LetNextKernelStart();
  const Ring<S> ring = {plan, 0, 0};
  // 168 registers · 384 threads at launch, as many after the warpgroups have traded them.
  if (warp < 4) {
    GiveRegisters<S::kLarge ? 40 : 56>();
    if (warp == 0) FeedCodes<S>(task, ring);
    if (warp == 1) FeedX<S>(task, ring);
    if (warp >= 2 && warp < 2 + S::kScaleWarps) {
      FeedScales<S>(task, ring, (warp - 2) * 32 + lane);
    }
  } else {
    TakeRegisters<S::kLarge ? 232 : 224>();
    const uint32_t table = plan.table | static_cast<uint32_t>(lane * 4);
    Compute<S>(task, ring, {(warp - 4) / 4, warp % 4, lane, table, S::kRowTiles});
  }
}

#endif

template <int kRowTiles, int kTokenTiles, int kGroups>
__global__ void __launch_bounds__(kThreads, 1)
    HopperKernel(const __grid_constant__ HopperTask task) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
  RunBlock<Shape<kRowTiles, kTokenTiles, kGroups>>(task);
#endif
}

// --- host ---

// More blocks would share tiles in pieces too short to be worth their sums' way through memory.
constexpr int64_t kLeastUnits = 8;

int64_t MaxBlocks(int num_processors) {
  constexpr int64_t kMost = kSplitCounters / 2;  // fewer than two shared tiles a block
  return num_processors < kMost ? num_processors : kMost;
}

int64_t NumTiles(const HopperTask& task, int64_t features) {
  int64_t tiles = 0;
  for (int i = 0; i < task.num_parts; ++i) tiles += CeilDiv(task.parts[i].weight.n, features);
  return tiles;
}

HopperWork WorkOf(int64_t row_tiles, int64_t token_tiles, int64_t units, int num_processors) {
  const int64_t tiles = row_tiles * token_tiles;
  int64_t blocks = tiles * units / kLeastUnits;
  if (blocks < tiles) blocks = tiles;
  if (blocks > MaxBlocks(num_processors)) blocks = MaxBlocks(num_processors);
  const int64_t waves = tiles / blocks > 0 ? tiles / blocks - 1 : 0;
  return {static_cast<int32_t>(tiles),       static_cast<int32_t>(row_tiles),
          static_cast<int32_t>(token_tiles), static_cast<int32_t>(units),
          static_cast<int32_t>(blocks),      static_cast<int32_t>(waves)};
}

using Kernel = void (*)(HopperTask);

// Groups of 32 are rare and make do with one form. Where large tiles would leave half of the
// processors without one, smaller tiles halve what those that share a tile must add up.
void LaunchParts(Tape* tape, int num_processors, HopperTask task) {
  const bool halves = task.group_units == 0;
  const int token_tiles = task.rows > kTileRows && !halves ? 2 : 1;
  const int64_t tokens = CeilDiv(task.rows, token_tiles * kTileRows);
  const int row_tiles = halves || NumTiles(task, 256) * tokens * 2 > num_processors ? 2 : 1;
  constexpr Kernel kKernels[2][2] = {{&HopperKernel<1, 1, 1>, &HopperKernel<1, 2, 1>},
                                     {&HopperKernel<2, 1, 1>, &HopperKernel<2, 2, 1>}};
  const Kernel kernel = halves ? &HopperKernel<2, 1, 2> : kKernels[row_tiles - 1][token_tiles - 1];
  task.work = WorkOf(NumTiles(task, 128 * row_tiles), tokens, NumUnits(task.parts[0].weight.k),
                     num_processors);
  Launch(tape, kernel, {static_cast<uint32_t>(task.work.blocks), 1, 1}, {kThreads, 1, 1},
         {kSharedBytes, true}, task);
}

}  // namespace

int64_t HopperSplitBytes(int num_processors) {
  return kSplitCounters * 4 + MaxBlocks(num_processors) * 2 * 256 * 2 * kTileRows * 4;
}

void FourBitHopper(Tape* tape, int num_processors, const TiledRows& x, const FourBitParts& parts,
                   void* split) {
  if (x.rows == 0) return;
  for (int64_t first = 0; first < parts.num_parts;) {
    const FourBitView& weight = parts.parts[first].weight;
    HopperTask task = {};
    task.tiles = reinterpret_cast<const char*>(x.tiles);
    task.scale = x.scale;
    task.arrivals = static_cast<uint32_t*>(split);
    task.partials = reinterpret_cast<float*>(task.arrivals + kSplitCounters);
    task.rows = x.rows;
    task.groups_per_row = weight.k / weight.group;
    task.group_units = static_cast<int32_t>(weight.group / kUnitK);
    for (; first < parts.num_parts; ++first) {
      if (parts.parts[first].weight.codebook != weight.codebook) break;
      task.parts[task.num_parts++] = parts.parts[first];
    }
    LaunchParts(tape, num_processors, task);
  }
}

}  // namespace nibble::cuda
