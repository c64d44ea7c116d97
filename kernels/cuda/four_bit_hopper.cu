// wgmma with weights as its A operand, decoded from 4 bits straight into registers, and x as B from
// shared memory. A block is one warpgroup that feeds a ring of stages (one unit of 64 k each:
// codes, tiles of x, scales) and two that compute 128 output features each: two tiles of 64 × 64·T
// tokens in fp32. Knows the packed layout and nothing of checkpoints.
//
// What a unit costs, 256 features × 128 tokens (T = 2), in clocks of one processor, derived, not
// run on a GPU. Tensor cores: 256·128·64 / 2048 = 1024. Shared memory at 128 bytes a clock: x read
// by wgmma 512 (it reads B once per 64 features), pair look-ups 256, codes in and out 128, x in
// 128, scales about 30: 1054, so the two are level. Issue slots: per warp and unit 2·(32 decoding +
// 64 scaling + 20), two warps to a scheduler: about 470 of 1024. A warpgroup's own chain is, twice
// per unit and 64 tokens, 4 wgmma (128) + drain (40) + scaling (40) = 830 of 1024: the other
// warpgroup fills the gaps, and decoding hides under the first wgmma.
// From L2 a unit takes 24 KB, 24 bytes a clock; a tile of 128 × 256 would take 36.
// T = 1: tensor cores 512, shared memory 256 + 256 + 128 + 64 + 30 = 734.
#include "cuda_machine.h"
#include "kernels/cuda/hopper_block.h"
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#include "kernels/cuda/hopper_compute.h"
#include "kernels/cuda/hopper_feed.h"
#include "kernels/cuda/hopper_store.h"
#endif

namespace nibble::cuda {
namespace {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)

template <int kTokenTiles, int kGroups, typename Ring>
__device__ __forceinline__ void Compute(const HopperTask& task, Ring ring, const Lane& lane) {
  WaitForPreviousKernel();
  PieceList list = PiecesOf(task.work, static_cast<int32_t>(blockIdx.x));
  for (Piece piece; NextPiece(task.work, static_cast<int32_t>(blockIdx.x), &list, &piece);) {
    float sum[2][kTokenTiles][32];
#pragma unroll
    for (int i = 0; i < kTokenTiles * 64; ++i) {
      sum[i / (kTokenTiles * 32)][i / 32 % kTokenTiles][i % 32] = 0.0f;
    }
    MultiplyPiece<kTokenTiles, kGroups>(sum, &ring, lane, piece.count);
    if (piece.count < task.work.units) {
      ShareTile<kTokenTiles>(task, ring.plan.fixed + kLastFlag, piece, lane, sum);
    } else {
      StoreWhole<kTokenTiles>(task, TileOf(task, piece.tile), lane, sum);
    }
  }
}

template <int kTokenTiles, int kGroups>
__device__ __forceinline__ void RunBlock(const HopperTask& task) {
  const SharedPlan plan = PlanShared(Shape<kTokenTiles, kGroups>::kBytes);
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  const int32_t warp = __shfl_sync(~0u, static_cast<int32_t>(threadIdx.x / 32), 0);
  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < plan.num_stages; ++stage) {
      BarrierInit(plan.Full(stage), 4);                      // the feeding warps
      BarrierInit(plan.Empty(stage), kComputeThreads / 32);  // the computing ones
    }
    BarrierInitFence();
  }
  FillTable(plan.table, task.parts[0].weight.codebook);
  __syncthreads();
  LetNextKernelStart();
  const Ring<Shape<kTokenTiles, kGroups>::kBytes> ring = {plan, 0, 0};
  // 168 registers · 384 threads at launch, as many after the warpgroups have traded them.
  if (warp < 4) {
    GiveRegisters<kTokenTiles == 2 ? 40 : 56>();
    if (warp == 0) FeedCodes(task, ring, lane);
    if (warp == 1) FeedX<kTokenTiles>(task, ring, lane);
    if (warp >= 2) FeedScales<kTokenTiles, kGroups>(task, ring, (warp - 2) * 32 + lane);
  } else {
    TakeRegisters<kTokenTiles == 2 ? 232 : 224>();
    Compute<kTokenTiles, kGroups>(
        task, ring, {(warp - 4) / 4, warp % 4, lane, plan.table | static_cast<uint32_t>(lane * 4)});
  }
}

#endif

template <int kTokenTiles, int kGroups>
__global__ void __launch_bounds__(kThreads, 1)
    HopperKernel(const __grid_constant__ HopperTask task) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
  RunBlock<kTokenTiles, kGroups>(task);
#endif
}

// --- host ---

// More blocks would share tiles in pieces too short to be worth their sums' way through memory.
constexpr int64_t kLeastUnits = 8;

int64_t MaxBlocks(int num_processors) {
  constexpr int64_t kMost = kSplitCounters / 2;  // fewer than two shared tiles a block
  return num_processors < kMost ? num_processors : kMost;
}

HopperWork WorkOf(const HopperTask& task, int num_processors, int64_t tokens) {
  int64_t row_tiles = 0;
  for (int i = 0; i < task.num_parts; ++i) row_tiles += CeilDiv(task.parts[i].weight.n, kBlockRows);
  const int64_t token_tiles = CeilDiv(task.rows, tokens);
  const int64_t tiles = row_tiles * token_tiles, units = NumUnits(task.parts[0].weight.k);
  int64_t blocks = tiles * units / kLeastUnits;
  if (blocks < tiles) blocks = tiles;
  if (blocks > MaxBlocks(num_processors)) blocks = MaxBlocks(num_processors);
  const int64_t waves = tiles / blocks > 0 ? tiles / blocks - 1 : 0;
  return {static_cast<int32_t>(tiles),       static_cast<int32_t>(row_tiles),
          static_cast<int32_t>(token_tiles), static_cast<int32_t>(units),
          static_cast<int32_t>(blocks),      static_cast<int32_t>(waves)};
}

using Kernel = void (*)(HopperTask);

void LaunchParts(Tape* tape, int num_processors, HopperTask task) {
  // Groups of 32 are rare: they make do with one tile of tokens.
  const bool wide = task.group_units > 0 && task.rows > kTileRows;
  const Kernel kernel = wide                   ? &HopperKernel<2, 1>
                        : task.group_units > 0 ? &HopperKernel<1, 1>
                                               : &HopperKernel<1, 2>;
  task.work = WorkOf(task, num_processors, wide ? 2 * kTileRows : kTileRows);
  Launch(tape, kernel, {static_cast<uint32_t>(task.work.blocks), 1, 1}, {kThreads, 1, 1},
         {kSharedBytes, true}, task);
}

}  // namespace

int64_t HopperSplitBytes(int num_processors) {
  return kSplitCounters * 4 + MaxBlocks(num_processors) * 2 * kBlockRows * 2 * kTileRows * 4;
}

void FourBitHopper(Tape* tape, int num_processors, const TiledRows& x, const FourBitParts& parts,
                   void* split) {
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
