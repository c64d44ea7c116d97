// M > 8: the warps of a block lie along N and share rows of x, which come to shared memory by
// asynchronous copies while the steps before them are multiplied.
#include "kernels/cuda/four_bit_staged.h"
#include "kernels/cuda/four_bit_tiles.inl"

namespace nibble::cuda {
namespace {

// kTiles · 8 rows of x; kDepth steps of them are staged at a time, in one of two buffers.
template <int kNumTiles, int kSteps, int kResident>
struct Tokens {
  static constexpr int kTiles = kNumTiles;
  static constexpr int kRows = 8 * kNumTiles;
  static constexpr int kDepth = kSteps;
  static constexpr int kBlocks = kResident;  // of a processor
};
using Tokens16 = Tokens<2, 4, 2>;
using Tokens32 = Tokens<4, 4, 1>;
using Tokens64 = Tokens<8, 2, 1>;

constexpr uint32_t kMapBytes = 1024;
constexpr uint32_t kRowBytes = 2 * kUnitK;  // of one row of x in a unit
constexpr uint32_t kBufferBytes = 16384;    // kDepth · warps_k · kRows · kRowBytes at most
constexpr uint32_t kSharedBytes = kPairTableBytes + kMapBytes + 2 * kBufferBytes;

// A buffer := unit[kDepth · warps_k] of row[kRows] of 8 pieces of 16 bytes. Odd rows have their
// halves exchanged, so that neither the pieces written together nor those read together share
// banks.
__device__ __forceinline__ uint32_t PieceOffset(uint32_t row, uint32_t piece) {
  return row * kRowBytes + (piece ^ (row & 1) * 4) * 16;
}

// Sends for x at the steps under the cursor.
template <typename T>
__device__ __forceinline__ void StageX(const PreparedRows& x, const TilePlan& plan, int64_t first_m,
                                       int units, const TileCursor<T::kDepth>& at,
                                       uint32_t buffer) {
  const int first = at.step * plan.warps_k;
  int count = (at.end - at.step < T::kDepth ? at.end - at.step : T::kDepth) * plan.warps_k;
  count = count < units - first ? count : units - first;
  const uint32_t piece = threadIdx.x % 8;
#pragma unroll
  for (uint32_t i = 0; i < kBufferBytes / 16 / kTileThreads; ++i) {
    const uint32_t row = threadIdx.x / 8 + i * (kTileThreads / 8), unit = row / T::kRows;
    int64_t m = first_m + row % T::kRows;
    m = m < x.rows ? m : x.rows - 1;
    if (static_cast<int>(unit) >= count) continue;
    const uint16_t* const from =
        x.values + m * x.stride + (first + static_cast<int>(unit)) * kUnitK + piece * 8;
    CopyAsync16(buffer + PieceOffset(row, piece), from, true);
  }
  CopyAsyncCommit();
}

// Adds step i, whose x begins at `x` for this lane's row.
template <typename T, typename Form>
__device__ __forceinline__ void AddStep(const char* table, const TileWarp& warp,
                                        const WarpWeights<Form, T::kDepth>& weights, int i,
                                        uint32_t x, TileSums<T::kTiles>& sums) {
  uint32_t a[2][2][2][4];
  float scales[2][2][Form::kHalves];
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    weights.Decode(table, static_cast<uint32_t>(warp.lane) * 4, i, p, a[p]);
    weights.ScalesOf(i, p, scales[p]);
  }
#pragma unroll
  for (int j = 0; j < T::kTiles; ++j) {
    const uint32_t tile = x + static_cast<uint32_t>(j) * 8 * kRowBytes;
    const uint4 b[2] = {LoadShared128(tile), LoadShared128(tile ^ 64)};
#pragma unroll
    for (int p = 0; p < 2; ++p) AddUnit<Form::kHalves>(a[p], b, scales[p], sums[p][j]);
  }
}

// Adds the steps under way, `steps` of which exist, and sends for `next_steps` more. kFull: kDepth
// of each.
template <bool kFull, typename T, typename Form>
__device__ __forceinline__ void AddSteps(const char* table, const TilePlan& plan,
                                         const TileWarp& warp, int steps, int next_steps,
                                         uint32_t x, WarpWeights<Form, T::kDepth>& weights,
                                         TileSums<T::kTiles>& sums) {
  const uint32_t step_bytes = static_cast<uint32_t>(plan.warps_k) * kUnitBytes;
  const uint32_t x_bytes = static_cast<uint32_t>(plan.warps_k) * T::kRows * kRowBytes;
#pragma unroll
  for (int i = 0; i < T::kDepth; ++i) {
    if (kFull || i < steps) {
      AddStep<T>(table, warp, weights, i, x + static_cast<uint32_t>(i) * x_bytes, sums);
    }
    if (kFull || i < next_steps) {
      weights.LoadStep(i, 0);
      weights.Advance(step_bytes);
    }
    __syncwarp();  // keeps the compiler from sending for weights only when they are wanted
  }
}

template <typename T, typename Form>
__global__ void __launch_bounds__(kTileThreads, T::kBlocks)
    Staged(PreparedRows x, FourBitParts parts, TilePlan plan, int64_t first_row, uint32_t* counters,
           float* partials) {
  constexpr int kDepth = T::kDepth, kTiles = T::kTiles;
  LetNextKernelStart();
  const int block = static_cast<int>(blockIdx.x), of_rows = static_cast<int>(blockIdx.y);
  const TilePart place = PartOfBlock(plan, block);
  const FourBitPart& part = parts.parts[place.index];
  const FourBitView& w = part.weight;
  const SplitPlace split = {counters, partials,
                            place.first_block + of_rows * static_cast<int>(gridDim.x),
                            block - place.first_block};
  const TileWarp warp = ThisWarp(plan, w.k);
  const int64_t first_m = first_row + int64_t{blockIdx.y} * T::kRows;
  TileCursor<kDepth> now =
      FirstOfBlock<kDepth>(plan, NumTiles(w, warp.warps_n), block - place.first_block);

  WarpWeights<Form, kDepth> weights;
  weights.scales.Clear();
  weights.Enter(w, plan, warp, now);
  int steps = StepsAt(now, warp);
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (i >= steps) continue;
    weights.LoadStep(i, 0);
    weights.Advance(static_cast<uint32_t>(plan.warps_k) * kUnitBytes);
  }
  if (steps > 0) weights.scales.Load(w.nested, plan, UnitOfLane(plan, warp, now.step, steps));

  char* const table = DynamicShared();
  float* const map = reinterpret_cast<float*>(table + kPairTableBytes);
  FillPairTable(table, w.codebook);
  float offset = 0;
  if constexpr (Form::kNested) {
    map[threadIdx.x] = w.map[threadIdx.x];
    offset = NestedOffset(w);
  }
  WaitForPreviousKernel();
  const uint32_t buffers = SharedAddress(table + kPairTableBytes + kMapBytes);
  uint32_t buffer = 0;  // 0 or kBufferBytes: where x of the current steps is
  StageX<T>(x, plan, first_m, warp.units, now, buffers);

  const uint32_t lane_x =
      buffers + static_cast<uint32_t>(warp.of_k) * T::kRows * kRowBytes +
      PieceOffset(static_cast<uint32_t>(warp.row), static_cast<uint32_t>(warp.pair));
  const int full_steps = warp.units / plan.warps_k;  // in which every warp has a unit
  TileSums<kTiles> sums;
  ClearSums<kTiles>(sums);
  while (!now.AtEnd()) {
    CopyAsyncWait<0>();
    __syncthreads();  // x is there for all, and nobody reads the other buffer any more
    weights.scales.Decode(map, offset);
    TileCursor<kDepth> next = now;
    const bool done = next.Advance(plan);
    const uint32_t at = lane_x + buffer;
    buffer ^= kBufferBytes;
    StageX<T>(x, plan, first_m, warp.units, next, buffers + buffer);
    const int last = now.end < full_steps ? now.end : full_steps;
    int next_steps;
    if (now.step + 2 * kDepth <= last) {
      next_steps = steps - kDepth;
      weights.scales.Load(w.nested, plan, UnitOfLane(plan, warp, next.step, kDepth));
      AddSteps<true, T>(table, plan, warp, kDepth, kDepth, at, weights, sums);
    } else {
      if (done) weights.Enter(w, plan, warp, next);
      next_steps = StepsAt(next, warp);
      if (next_steps > 0) {
        weights.scales.Load(w.nested, plan, UnitOfLane(plan, warp, next.step, next_steps));
      }
      AddSteps<false, T>(table, plan, warp, steps, next_steps, at, weights, sums);
      if (done) {
        FinishTile<kTiles>(plan, warp, split, now.Share(), part, x, first_m, table, sums);
      }
    }
    now = next;
    steps = next_steps;
  }
  CopyAsyncWait<0>();
}

// Groups of 32, which only the smallest tiles have a kernel for.
bool HasHalfGroups(const FourBitParts& parts) { return parts.parts[0].weight.group < kUnitK; }

// Bytes of partial sums that a block may leave.
template <typename T>
constexpr int64_t BlockPartials(int warps_k) {
  return 2 * (kTileWarps / warps_k) * (8 * T::kTiles * 32) * 4;
}

template <typename T>
void LaunchStaged(Tape* tape, const PreparedRows& x, const FourBitParts& parts,
                  const TilePlan& plan, void* split) {
  const int64_t blocks = plan.first_block[kMaxFourBitParts];
  const int64_t room =
      (kSplitBytes - 4 * kSplitCounters) / (blocks * BlockPartials<T>(plan.warps_k));
  const bool nested = parts.parts[0].weight.absmax_codes != nullptr;
  auto* kernel = nested ? Staged<T, ScaleForm<1, true>> : Staged<T, ScaleForm<1, false>>;
  if constexpr (T::kRows == 16) {
    if (HasHalfGroups(parts)) {
      kernel = nested ? Staged<T, ScaleForm<2, true>> : Staged<T, ScaleForm<2, false>>;
    }
  }
  uint32_t* const counters = static_cast<uint32_t*>(split);
  float* const partials = reinterpret_cast<float*>(counters + kSplitCounters);
  // Rows in as many launches as the memory for partial sums asks for.
  for (int64_t row = 0; row < x.rows; row += room * T::kRows) {
    const int64_t tiles = (x.rows - row + T::kRows - 1) / T::kRows;
    const Dim3 grid = {static_cast<uint32_t>(blocks),
                       static_cast<uint32_t>(tiles < room ? tiles : room)};
    PreparedRows rows = x;
    if (tiles > room) rows.rows = row + room * T::kRows;
    Launch(tape, kernel, grid, {kTileThreads}, {kSharedBytes, true}, rows, parts, plan, row,
           counters, partials);
  }
}

// The most blocks whose partial sums find room.
template <typename T>
int64_t MostBlocks(int64_t wanted) {
  const int64_t most = (kSplitBytes - 4 * kSplitCounters) / BlockPartials<T>(1);
  return wanted < most ? wanted : most;
}

template <typename T>
void LaunchAsMany(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                  void* split) {
  const int64_t tiles = (x.rows + T::kRows - 1) / T::kRows;
  const int64_t blocks = MostBlocks<T>(int64_t{T::kBlocks} * num_processors) / tiles;
  TilePlan plan = PlanTiles(parts, 1, blocks);
  // Where many blocks would share a tile, warps of one block share its rows instead.
  if (T::kRows == 16 && plan.steps > 4 * plan.block_steps) plan = PlanTiles(parts, 2, blocks);
  LaunchStaged<T>(tape, x, parts, plan, split);
}

// The same cuts for any number of rows: those of the largest tiles.
template <typename T>
void LaunchAlike(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                 void* split) {
  for (int64_t i = 0; i < parts.num_parts; ++i) {
    FourBitParts one = {};
    one.parts[0] = parts.parts[i];
    one.num_parts = 1;
    LaunchStaged<T>(tape, x, one, PlanTiles(one, 1, MostBlocks<Tokens64>(num_processors)), split);
  }
}

template <typename T>
void LaunchTokens(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                  bool batch_invariant, void* split) {
  batch_invariant ? LaunchAlike<T>(tape, num_processors, x, parts, split)
                  : LaunchAsMany<T>(tape, num_processors, x, parts, split);
}

}  // namespace

void FourBitStaged(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                   bool batch_invariant, void* split) {
  if (x.rows <= Tokens16::kRows || HasHalfGroups(parts)) {
    LaunchTokens<Tokens16>(tape, num_processors, x, parts, batch_invariant, split);
  } else if (x.rows <= Tokens32::kRows) {
    LaunchTokens<Tokens32>(tape, num_processors, x, parts, batch_invariant, split);
  } else {
    LaunchTokens<Tokens64>(tape, num_processors, x, parts, batch_invariant, split);
  }
}

}  // namespace nibble::cuda
