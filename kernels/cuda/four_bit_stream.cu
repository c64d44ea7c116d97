// M <= 8: the 8 warps of a block take neighbouring units of the same 32 output rows, so that a
// block reads 4 KB of one panel after another; x comes through L1.
#include "kernels/cuda/four_bit_plan.h"
#include "kernels/cuda/four_bit_stream.h"
#include "kernels/cuda/four_bit_tiles.inl"

namespace nibble::cuda {
namespace {

constexpr uint32_t kMapBytes = 1024;
constexpr uint32_t kSharedBytes = kPairTableBytes + kMapBytes;

constexpr int kDepth = 4;
constexpr uint32_t kStepBytes = kTileWarps * kUnitBytes;
template <typename Form>
using StreamWeights = WarpWeights<Form, kDepth>;

// x at a lane's 16 k of a unit.
struct XUnit {
  uint4 halves[2];
  __device__ __forceinline__ void Load(const uint16_t* x, int step) {
    const uint4* const from = reinterpret_cast<const uint4*>(x + step * (kTileWarps * kUnitK));
    halves[0] = from[0];
    halves[1] = from[4];
  }
};

// Where a lane's x begins; rows past the last read that one.
__device__ __forceinline__ const uint16_t* XAt(const PreparedRows& x, const TileWarp& warp,
                                               int step) {
  const int64_t m = warp.row < x.rows ? warp.row : x.rows - 1;
  return x.values + m * x.stride + (step * kTileWarps + warp.of_k) * kUnitK + warp.pair * 8;
}

template <typename Form>
__device__ __forceinline__ void AddStep(const char* table, uint32_t lane4,
                                        const StreamWeights<Form>& stream, const XUnit& x, int i,
                                        TileSums<1>& sums) {
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    uint32_t a[2][2][4];
    stream.Decode(table, lane4, i, p, a);
    float scales[2][Form::kHalves];
    stream.ScalesOf(i, p, scales);
    AddUnit<Form::kHalves>(a, x.halves, scales, sums[p][0]);
  }
}

// Adds the kDepth steps under way, `steps` of which exist, and sends for `next_steps` more, whose x
// begins at next_x. kFull: kDepth of each, x going on.
template <bool kFull, typename Form>
__device__ __forceinline__ void AddSteps(const char* table, uint32_t lane4, const uint16_t* x,
                                         const uint16_t* next_x, int steps, int next_steps,
                                         StreamWeights<Form>& stream, XUnit (&units)[2],
                                         TileSums<1>& sums) {
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (i + 1 < kDepth && (kFull || i + 1 < steps)) units[(i + 1) % 2].Load(x, i + 1);
    if (i + 1 == kDepth && kFull) units[0].Load(x, kDepth);
    if (i + 1 == kDepth && !kFull && next_steps > 0) units[0].Load(next_x, 0);
    if (kFull || i < steps) AddStep(table, lane4, stream, units[i % 2], i, sums);
    if (kFull || i < next_steps) stream.LoadStep(i, i * kStepBytes);
    __syncwarp();  // keeps the compiler from sending for weights only when they are wanted
  }
}

template <typename Form>
__global__ void __launch_bounds__(kTileThreads, 2)
    Stream(PreparedRows x, FourBitParts parts, TilePlan plan, uint32_t* counters, float* partials) {
  LetNextKernelStart();
  const int block = static_cast<int>(blockIdx.x);
  const TilePart place = PartOfBlock(plan, block);
  const FourBitPart& part = parts.parts[place.index];
  const FourBitView& w = part.weight;
  const SplitPlace split = {counters, partials, place.first_block, block - place.first_block};
  const TileWarp warp = ThisWarp(plan, w.k);
  TileCursor<kDepth> now = FirstOfBlock<kDepth>(plan, NumTiles(w, 1), split.block), next;

  StreamWeights<Form> stream;
  stream.scales.Clear();
  stream.Enter(w, plan, warp, now);
  int steps = StepsAt(now, warp);
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (i < steps) stream.LoadStep(i, i * kStepBytes);
  }
  stream.Advance(kDepth * kStepBytes);
  if (steps > 0) {
    stream.scales.Load(w.nested, plan, UnitOfLane(plan, warp, now.step, steps));
  }

  char* const table = DynamicShared();
  float* const map = reinterpret_cast<float*>(table + kPairTableBytes);
  FillPairTable(table, w.codebook);
  float offset = 0;
  if constexpr (Form::kNested) {
    map[threadIdx.x] = w.map[threadIdx.x];
    offset = NestedOffset(w);
  }
  __syncthreads();
  WaitForPreviousKernel();

  const uint32_t lane4 = static_cast<uint32_t>(warp.lane) * 4;
  XUnit units[2];
  const uint16_t* at = XAt(x, warp, now.step);
  if (steps > 0) units[0].Load(at, 0);
  TileSums<1> sums;
  ClearSums<1>(sums);
  while (!now.AtEnd()) {
    constexpr int kChunk = kDepth * kTileWarps * kUnitK;
    uint32_t unit = UnitOfLane(plan, warp, now.step, kDepth);
    for (; steps >= 2 * kDepth; steps -= kDepth) {
      stream.scales.Decode(map, offset);
      now.step += kDepth;
      unit += kDepth * kTileWarps;
      stream.scales.Load(w.nested, plan, unit);
      AddSteps<true>(table, lane4, at, at, kDepth, kDepth, stream, units, sums);
      stream.Advance(kDepth * kStepBytes);
      at += kChunk;
    }
    stream.scales.Decode(map, offset);
    next = now;
    const bool done = next.Advance(plan);
    if (done) stream.Enter(w, plan, warp, next);
    const int next_steps = StepsAt(next, warp);
    if (next_steps > 0) {
      stream.scales.Load(w.nested, plan, UnitOfLane(plan, warp, next.step, next_steps));
    }
    const uint16_t* const next_at = XAt(x, warp, next.step);
    AddSteps<false>(table, lane4, at, next_at, steps, next_steps, stream, units, sums);
    stream.Advance(kDepth * kStepBytes);
    if (done) FinishTile<1>(plan, warp, split, now.Share(), part, x, 0, table, sums);
    now = next;
    steps = next_steps;
    at = next_at;
  }
}

}  // namespace

void FourBitStream(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                   void* split) {
  if (x.rows == 0) return;
  const TilePlan plan = PlanTiles(parts, kTileWarps, 2 * num_processors);
  const Dim3 grid = {static_cast<uint32_t>(plan.first_block[kMaxFourBitParts])};
  const LaunchOptions options = {kSharedBytes, true};
  uint32_t* const counters = static_cast<uint32_t*>(split);
  float* const partials = reinterpret_cast<float*>(counters + kSplitCounters);
  const bool half_groups = parts.parts[0].weight.group < kUnitK;
  const bool nested = parts.parts[0].weight.absmax_codes != nullptr;
  const auto kernel = nested ? half_groups ? Stream<ScaleForm<2, true>> : Stream<ScaleForm<1, true>>
                      : half_groups ? Stream<ScaleForm<2, false>>
                                    : Stream<ScaleForm<1, false>>;
  Launch(tape, kernel, grid, {kTileThreads}, options, x, parts, plan, counters, partials);
}

}  // namespace nibble::cuda
