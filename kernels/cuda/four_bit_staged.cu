// M > 8: the warps of a block lie along N and share rows of x, which come to shared memory by
// asynchronous copies while the steps before them are multiplied.
#include "kernels/cuda/four_bit_staged.h"
#include "kernels/cuda/four_bit_tiles.inl"

namespace nibble::cuda {
namespace {

// kTiles · 8 rows of x, kDepth steps of which are staged at a time, in one of two buffers; kWarpsK
// warps share panels.
template <int kNumTiles, int kSteps, int kSharing, int kResident>
struct Tokens {
  static constexpr int kTiles = kNumTiles;
  static constexpr int kRows = 8 * kNumTiles;
  static constexpr int kDepth = kSteps;
  static constexpr int kWarpsK = kSharing;
  static constexpr int kBlocks = kResident;  // of a processor
  static constexpr int kChunkUnits = kDepth * kWarpsK;
  static constexpr uint32_t kStepBytes = kWarpsK * kUnitBytes;  // of the codes of a panel
};
using Tokens16 = Tokens<2, 4, 1, 2>;
using Tokens16Narrow = Tokens<2, 4, 2, 2>;
using Tokens32 = Tokens<4, 4, 1, 1>;
using Tokens64 = Tokens<8, 2, 1, 1>;

constexpr uint32_t kMapBytes = 1024;
constexpr uint32_t kRowBytes = 2 * kUnitK;  // of one row of x in a unit
constexpr uint32_t kBufferBytes = 16384;    // kChunkUnits · kRows · kRowBytes at most
constexpr uint32_t kSharedBytes = kPairTableBytes + kMapBytes + 2 * kBufferBytes;

// A buffer := unit[kChunkUnits] of row[kRows] of 8 pieces of 16 bytes. Odd rows have their halves
// exchanged, so that neither the pieces written together nor those read together share banks.
__device__ __forceinline__ uint32_t PieceOffset(uint32_t row, uint32_t piece) {
  return row * kRowBytes + (piece ^ (row & 1) * 4) * 16;
}

// The pieces that a thread brings to shared memory: one of each 32 rows of a buffer, which are
// those of one row of x, or of two.
template <typename T>
struct XPieces {
  static constexpr int kPieces = T::kChunkUnits * T::kRows * 8 / kTileThreads;
  static constexpr int kStride = kTileThreads / 8;  // rows of a buffer between a thread's pieces
  const uint16_t* from;                             // of the first row, in unit 0
  int64_t second;                                   // from the first row of x to the second
  uint32_t to;
  int unit;  // of the first piece

  __device__ __forceinline__ void Begin(const PreparedRows& x, int64_t first_m, uint32_t buffers) {
    const uint32_t row = threadIdx.x / 8, piece = threadIdx.x % 8;
    const int64_t last = x.rows - 1, m = first_m + row % T::kRows;
    const int64_t clamped = m < last ? m : last, next = m + kStride < last ? m + kStride : last;
    unit = static_cast<int>(row) / T::kRows;
    from = x.values + clamped * x.stride + unit * kUnitK + piece * 8;
    second = (next - clamped) * x.stride;
    to = buffers + PieceOffset(row, piece);
  }
  __device__ __forceinline__ const uint16_t* At(int first_unit) const {
    return from + int64_t{first_unit} * kUnitK;
  }
  // `count` units from At(), at most kChunkUnits; kFull: as many.
  template <bool kFull>
  __device__ __forceinline__ void Send(const uint16_t* at, int count, uint32_t buffer) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int later = i * kStride / T::kRows;
      if (!kFull && unit + later >= count) continue;
      const int64_t row = i * kStride % T::kRows == 0 ? 0 : second;
      CopyAsync16(to + buffer + static_cast<uint32_t>(i) * kStride * kRowBytes,
                  at + row + later * kUnitK, true);
    }
    CopyAsyncCommit();
  }
  // The steps under the cursor.
  __device__ __forceinline__ void SendSteps(const TileCursor<T::kDepth>& at, int units,
                                            uint32_t buffer) const {
    const int first = at.step * T::kWarpsK, end = at.end * T::kWarpsK;
    Send<false>(At(first), (end < units ? end : units) - first, buffer);
  }
};

// x of a lane in a buffer, at its k in both halves of a unit.
struct LaneX {
  uint32_t halves[2];
  __device__ __forceinline__ void Load(uint32_t offset, uint4 (&b)[2]) const {
    b[0] = LoadShared128(halves[0] + offset);
    b[1] = LoadShared128(halves[1] + offset);
  }
};

// Adds step i; x is that of the warp's first unit in the buffer.
template <typename T, typename Form>
__device__ __forceinline__ void AddStep(const char* table, uint32_t lane4,
                                        const WarpWeights<Form, T::kDepth>& weights, int i,
                                        const LaneX& x, TileSums<T::kTiles>& sums) {
  constexpr uint32_t kTileBytes = 8 * kRowBytes;
  const uint32_t unit = static_cast<uint32_t>(i * T::kWarpsK) * T::kRows * kRowBytes;
  float scales[2][2][Form::kHalves];
#pragma unroll
  for (int p = 0; p < 2; ++p) weights.ScalesOf(i, p, scales[p]);
  if constexpr (T::kTiles <= 2) {
    uint4 b[T::kTiles][2];
#pragma unroll
    for (int j = 0; j < T::kTiles; ++j) x.Load(unit + static_cast<uint32_t>(j) * kTileBytes, b[j]);
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      uint32_t a[2][2][4];
      weights.Decode(table, lane4, i, p, a);
#pragma unroll
      for (int j = 0; j < T::kTiles; ++j) AddUnit<Form::kHalves>(a, b[j], scales[p], sums[p][j]);
    }
  } else {
    uint32_t a[2][2][2][4];
#pragma unroll
    for (int p = 0; p < 2; ++p) weights.Decode(table, lane4, i, p, a[p]);
#pragma unroll
    for (int j = 0; j < T::kTiles; ++j) {
      uint4 b[2];
      x.Load(unit + static_cast<uint32_t>(j) * kTileBytes, b);
#pragma unroll
      for (int p = 0; p < 2; ++p) AddUnit<Form::kHalves>(a[p], b, scales[p], sums[p][j]);
    }
  }
}

// Adds the steps under way, `steps` of which exist, and sends for `next_steps` more. kFull: kDepth
// of each.
template <bool kFull, typename T, typename Form>
__device__ __forceinline__ void AddSteps(const char* table, uint32_t lane4, int steps,
                                         int next_steps, const LaneX& x,
                                         WarpWeights<Form, T::kDepth>& weights,
                                         TileSums<T::kTiles>& sums) {
#pragma unroll
  for (int i = 0; i < T::kDepth; ++i) {
    if (kFull || i < steps) AddStep<T>(table, lane4, weights, i, x, sums);
    if (kFull || i < next_steps) weights.LoadStep(i, static_cast<uint32_t>(i) * T::kStepBytes);
    __syncwarp();  // keeps the compiler from sending for weights only when they are wanted
  }
  weights.Advance(T::kDepth * T::kStepBytes);
}

// What a warp does in its block.
template <typename T, typename Form>
struct StagedWarp {
  static constexpr int kDepth = T::kDepth;
  const TilePlan& plan;
  const FourBitView& w;
  const TileWarp warp;
  char* const table;
  const uint32_t buffers;
  TileCursor<kDepth> now;
  WarpWeights<Form, kDepth> weights;
  XPieces<T> pieces;
  uint32_t buffer;  // 0 or kBufferBytes: where x of the current steps is
  uint32_t lane_x;  // of this lane in the first buffer
  float offset;
  TileSums<T::kTiles> sums;

  __device__ __forceinline__ const float* Map() const {
    return reinterpret_cast<const float*>(table + kPairTableBytes);
  }

  // Sends for the first weights and makes the tables: needs nothing of the kernel before.
  __device__ __forceinline__ void BeginWeights() {
    weights.scales.Clear();
    weights.Enter(w, plan, warp, now);
    const int steps = StepsAt(now, warp);
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      if (i < steps) weights.LoadStep(i, static_cast<uint32_t>(i) * T::kStepBytes);
    }
    weights.Advance(T::kDepth * T::kStepBytes);
    if (steps > 0) weights.scales.Load(w.nested, plan, UnitOfLane(plan, warp, now.step, steps));
    FillPairTable(table, w.codebook);
    offset = 0;
    if constexpr (Form::kNested) {
      reinterpret_cast<float*>(table + kPairTableBytes)[threadIdx.x] = w.map[threadIdx.x];
      offset = NestedOffset(w);
    }
  }

  // Sends for the first rows of x.
  __device__ __forceinline__ void BeginX(const PreparedRows& x, int64_t first_m) {
    buffer = 0;
    pieces.Begin(x, first_m, buffers);
    pieces.SendSteps(now, warp.units, buffer);
    lane_x = buffers + static_cast<uint32_t>(warp.of_k) * T::kRows * kRowBytes +
             PieceOffset(static_cast<uint32_t>(warp.row), static_cast<uint32_t>(warp.pair));
    ClearSums<T::kTiles>(sums);
  }

  // To the next kDepth steps, whose x is there for all when this returns; nobody reads the other
  // buffer any more.
  __device__ __forceinline__ void Meet() {
    CopyAsyncWait<0>();
    __syncthreads();
    weights.scales.Decode(Map(), offset);
  }
  template <bool kFull>
  __device__ __forceinline__ void Add(int steps, int next_steps) {
    const uint32_t x = lane_x + buffer;
    AddSteps<kFull, T>(table, static_cast<uint32_t>(warp.lane) * 4, steps, next_steps,
                       {{x, x ^ 64}}, weights, sums);
    buffer ^= kBufferBytes;
  }

  // The steps of this tile that are full and have full ones behind them.
  __device__ __forceinline__ void AddFullSteps() {
    const int full = warp.units / T::kWarpsK;  // every warp has a unit
    const int last = now.end < full ? now.end : full;
    const int chunks = now.step + kDepth < last ? (last - now.step) / kDepth - 1 : 0;
    uint32_t unit = UnitOfLane(plan, warp, now.step, kDepth);
    const uint16_t* to_send = pieces.At((now.step + kDepth) * T::kWarpsK);
    for (int left = chunks; left > 0; --left) {
      Meet();
      pieces.template Send<true>(to_send, T::kChunkUnits, buffer ^ kBufferBytes);
      to_send += T::kChunkUnits * kUnitK;
      unit += T::kChunkUnits;
      weights.scales.Load(w.nested, plan, unit);
      Add<true>(kDepth, kDepth);
    }
    now.step += chunks * kDepth;
  }

  // Up to kDepth steps more, and on to what follows them. True: the tile is done.
  __device__ __forceinline__ bool AddRest() {
    Meet();
    const int steps = StepsAt(now, warp);
    const bool done = now.Advance(plan);
    pieces.SendSteps(now, warp.units, buffer ^ kBufferBytes);
    if (done) weights.Enter(w, plan, warp, now);
    const int next_steps = StepsAt(now, warp);
    if (next_steps > 0) {
      weights.scales.Load(w.nested, plan, UnitOfLane(plan, warp, now.step, next_steps));
    }
    Add<false>(steps, next_steps);
    return done;
  }
};

template <typename T, typename Form>
__global__ void __launch_bounds__(kTileThreads, T::kBlocks)
    Staged(PreparedRows x, FourBitParts parts, TilePlan plan, int64_t first_row, uint32_t* counters,
           float* partials) {
  LetNextKernelStart();
  plan.warps_k = T::kWarpsK;
  const int block = static_cast<int>(blockIdx.x), of_rows = static_cast<int>(blockIdx.y);
  const TilePart place = PartOfBlock(plan, block);
  const FourBitPart& part = parts.parts[place.index];
  const SplitPlace split = {counters, partials,
                            place.first_block + of_rows * static_cast<int>(gridDim.x),
                            block - place.first_block};
  const TileWarp warp = ThisWarp(plan, part.weight.k);
  const int tiles = NumTiles(part.weight, warp.warps_n);
  char* const table = DynamicShared();
  StagedWarp<T, Form> work = {plan,
                              part.weight,
                              warp,
                              table,
                              SharedAddress(table + kPairTableBytes + kMapBytes),
                              FirstOfBlock<T::kDepth>(plan, tiles, split.block)};
  work.BeginWeights();
  WaitForPreviousKernel();
  const int64_t first_m = first_row + int64_t{blockIdx.y} * T::kRows;
  work.BeginX(x, first_m);
  while (!work.now.AtEnd()) {
    const TileShare share = work.now.Share();
    work.AddFullSteps();
    if (work.AddRest()) {
      FinishTile<T::kTiles>(plan, warp, split, share, part, x, first_m, table, work.sums);
    }
  }
  CopyAsyncWait<0>();
}

// Groups of 32, which only the smallest tiles have a kernel for.
bool HasHalfGroups(const FourBitParts& parts) { return parts.parts[0].weight.group < kUnitK; }

// Bytes of partial sums that a block may leave.
template <typename T>
constexpr int64_t BlockPartials() {
  return 2 * (kTileWarps / T::kWarpsK) * (8 * T::kTiles * 32) * 4;
}

template <typename T>
void LaunchStaged(Tape* tape, const PreparedRows& x, const FourBitParts& parts,
                  const TilePlan& plan, void* split) {
  const int64_t blocks = plan.first_block[kMaxFourBitParts];
  const int64_t room = (kSplitBytes - 4 * kSplitCounters) / (blocks * BlockPartials<T>());
  const bool nested = parts.parts[0].weight.absmax_codes != nullptr;
  auto* kernel = nested ? Staged<T, ScaleForm<1, true>> : Staged<T, ScaleForm<1, false>>;
  if constexpr (T::kRows == 16 && T::kWarpsK == 1) {
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
  const int64_t most = (kSplitBytes - 4 * kSplitCounters) / BlockPartials<T>();
  return wanted < most ? wanted : most;
}

template <typename T>
void LaunchAsMany(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                  void* split) {
  const int64_t tiles = (x.rows + T::kRows - 1) / T::kRows;
  const int64_t blocks = MostBlocks<T>(int64_t{T::kBlocks} * num_processors) / tiles;
  const TilePlan plan = PlanTiles(parts, T::kWarpsK, blocks);
  if constexpr (T::kRows == 16 && T::kWarpsK == 1) {
    // Where many blocks would share a tile, warps of one block share its rows instead.
    if (plan.steps > 4 * plan.block_steps && !HasHalfGroups(parts)) {
      return LaunchAsMany<Tokens16Narrow>(tape, num_processors, x, parts, split);
    }
  }
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
  if (x.rows == 0) return;
  if (x.rows <= Tokens16::kRows || HasHalfGroups(parts)) {
    LaunchTokens<Tokens16>(tape, num_processors, x, parts, batch_invariant, split);
  } else if (x.rows <= Tokens32::kRows) {
    LaunchTokens<Tokens32>(tape, num_processors, x, parts, batch_invariant, split);
  } else {
    LaunchTokens<Tokens64>(tape, num_processors, x, parts, batch_invariant, split);
  }
}

}  // namespace nibble::cuda
