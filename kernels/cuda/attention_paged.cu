// PagedAttention on the tensor cores. Sequences with one row go to DecodeKernel, split over their
// context, the others to PrefillKernel, which walks the context; both compute what
// attention_tiles.h says a row's numbers are, so they agree to the last bit.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_stream.h"
#include "kernels/cuda/attention_tiles.h"

namespace nibble::cuda {
namespace {

struct PagedTask {
  CacheView cache;
  const DeviceSequence* sequences;
  const float* q;
  float* out;
  float* partials;  // [sequence][head][split][head_dim values, largest, weights]
  int64_t q_stride;
  int64_t out_stride;
  float scale;  // in units of log2
  int32_t num_heads;
  int32_t heads_per_kv;
  int32_t first_sequence;
  int32_t max_splits;    // of a row of this step
  int32_t takes_single;  // 1: PrefillKernel takes sequences of one row, too
};

// --- decode: one row of a sequence, the heads of one KV head, one split ---

constexpr int kDecodeWarps = kTilePages;
// How far loads run ahead; 64 KB of shared memory, 96 KB for head_dim above 128.
template <int kBucket>
constexpr int kDecodeParts = kBucket == 256 ? 3 : 4;
template <int kBucket>
using DecodeStream = PageStream<kBucket, kDecodeParts<kBucket>, kDecodeWarps>;
template <int kBucket>
using DecodeSums = RowSums<kBucket / 16 / kDecodeWarps>;

// Beyond the ring: what the four warps, each with 16 of a tile's keys, tell each other.
struct Exchange {
  float largest[kDecodeWarps][kTileRows];
  uint4 weights[kDecodeWarps][kWarpLanes];
};

// One tile's weights into the exchange, this warp those of its 16 keys; sums take their base.
template <typename Pairs, int kBucket>
__device__ __forceinline__ void WeighShared(const Queries<Pairs, kBucket>& queries, uint32_t keys,
                                            int last, Exchange* exchange,
                                            DecodeSums<kBucket>* sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  float s[1][2][4] = {};
  Score(queries,
        PageKeys<kBucket>(keys + static_cast<uint32_t>(warp) * TileLayout<kBucket>::kPageBytes), s);
  const int own_last = last - warp * kSlots;
  ScaleAndMask(queries.scale, {own_last, own_last}, s[0]);
  float raised[2] = {-INFINITY, -INFINITY};
  Raise(s[0], raised);
  for (int h = 0; h < 2; ++h) {
    raised[h] = RowMax(raised[h]);
    if (lane % 4 == 0) exchange->largest[warp][lane / 4 + 8 * h] = raised[h];
  }
  __syncthreads();
  for (int h = 0; h < 2; ++h) {
    raised[h] = sums->largest[h];
    for (int w = 0; w < kDecodeWarps; ++w) {
      raised[h] = fmaxf(raised[h], exchange->largest[w][lane / 4 + 8 * h]);
    }
  }
  uint32_t weights[4];
  Weigh<Pairs>(s[0], raised, weights);
  exchange->weights[warp][lane] = {weights[0], weights[1], weights[2], weights[3]};
  sums->Rebase(raised);
}

// Writes the rows' results, or their share of it if there are several splits.
template <int kBucket>
__device__ __forceinline__ void WriteSplit(const PagedTask& task, const DecodeSums<kBucket>& sums,
                                           int row, int split, bool alone) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int head_dim = task.cache.head_dim;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = lane / 4 + 8 * h;
    if (r >= task.heads_per_kv) continue;
    const int head = static_cast<int>(blockIdx.y) * task.heads_per_kv + r;
    const int64_t index =
        (static_cast<int64_t>(blockIdx.z) * task.num_heads + head) * task.max_splits + split;
    float* to = alone ? task.out + row * task.out_stride + head * head_dim
                      : task.partials + index * (head_dim + 2);
    const float factor = alone ? 1.0f / sums.weights[2 * h] : 1.0f;
    ForValues(sums, h, head_dim, warp, kDecodeWarps, [&](int d, float a, float b) {
      to[d] = a * factor;
      to[d + 1] = b * factor;
    });
    if (!alone && warp == 0 && lane % 4 == 0) {
      to[head_dim] = sums.largest[h];
      to[head_dim + 1] = sums.weights[2 * h];
    }
  }
}

// The queries of the heads of KV head `head`, which are this block's rows.
template <typename Pairs, int kBucket>
__device__ __forceinline__ Queries<Pairs, kBucket> LoadHeads(const PagedTask& task, int row,
                                                             int head) {
  const int g = static_cast<int>(threadIdx.x) % kWarpLanes / 4;
  const int head_dim = task.cache.head_dim;
  const float* q = task.q + row * task.q_stride + (head * task.heads_per_kv + g) * head_dim;
  Queries<Pairs, kBucket> queries;
  queries.Load(
      {g < task.heads_per_kv ? q : nullptr, g + 8 < task.heads_per_kv ? q + 8 * head_dim : nullptr},
      head_dim, nullptr);
  queries.scale[0] *= task.scale;
  queries.scale[1] *= task.scale;
  return queries;
}

// Grid: [splits, KV, sequences].
template <typename Pairs, int kBucket>
__global__ void DecodeKernel(PagedTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int index = task.first_sequence + static_cast<int>(blockIdx.z);
  const DeviceSequence sequence = task.sequences[index];
  if (sequence.num_rows != 1) return;
  const int context = sequence.start + 1;
  const int split_slots = SplitSlots(context);
  const int begin = static_cast<int>(blockIdx.x) * split_slots;
  if (begin >= context) return;
  const int end = Least(begin + split_slots, context);

  constexpr int kParts = kDecodeParts<kBucket>;
  char* shared = DynamicShared();
  auto* exchange = reinterpret_cast<Exchange*>(shared + DecodeStream<kBucket>::kBytes);
  const int head = static_cast<int>(blockIdx.y);
  DecodeStream<kBucket> stream(task.cache, shared, index, head, begin, end);
#pragma unroll
  for (int part = 0; part < kParts - 1; ++part) stream.Issue(part);
  const auto queries = LoadHeads<Pairs, kBucket>(task, sequence.first_row, head);
  DecodeSums<kBucket> sums;
  sums.Clear();
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  for (int tile = 0; begin + tile * kTileSlots < end; ++tile) {
    stream.Await();
    stream.Issue(2 * tile + kParts - 1);
    WeighShared(queries, stream.Part(2 * tile), end - 1 - begin - tile * kTileSlots, exchange,
                &sums);
    stream.Await();
    stream.Issue(2 * tile + kParts);
#pragma unroll
    for (int page = 0; page < kTilePages; ++page) {
      const uint4 a = exchange->weights[page][lane];
      sums.template Add<Pairs, kBucket>({a.x, a.y, a.z, a.w}, stream.Part(2 * tile + 1), page, warp,
                                        kDecodeWarps);
    }
  }
  WriteSplit<kBucket>(task, sums, sequence.first_row, static_cast<int>(blockIdx.x),
                      context <= split_slots);
}

// Adds a row's splits in order. Grid: [H, sequences]; a thread has some values of d.
__global__ void CombineKernel(PagedTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const DeviceSequence sequence =
      task.sequences[task.first_sequence + static_cast<int>(blockIdx.y)];
  if (sequence.num_rows != 1) return;
  const int context = sequence.start + 1;
  const int split_slots = SplitSlots(context);
  if (context <= split_slots) return;
  const int splits = (context + split_slots - 1) / split_slots;
  const int head_dim = task.cache.head_dim;
  const int head = static_cast<int>(blockIdx.x);
  const int64_t index = static_cast<int64_t>(blockIdx.y) * task.num_heads + head;
  const float* partial = task.partials + index * task.max_splits * (head_dim + 2);
  float* out = task.out + sequence.first_row * task.out_stride + head * head_dim;
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += static_cast<int>(blockDim.x)) {
    float value = partial[d];
    float largest = partial[head_dim];
    float weights = partial[head_dim + 1];
#pragma unroll 4
    for (int split = 1; split < splits; ++split) {
      const float* next = partial + split * (head_dim + 2);
      const Bases bases = CommonBase(largest, next[head_dim]);
      value = MergeValue(bases, value, next[d]);
      weights = MergeValue(bases, weights, next[head_dim + 1]);
      largest = bases.largest;
    }
    out[d] = value * (1.0f / weights);
  }
}

// --- prefill: many rows of a sequence, 16 to a warp; row r is query head r % G of token r / G ---

template <int kBucket>
constexpr int kPrefillWarps = kBucket == 256 ? 4 : 8;
template <int kBucket>
using PrefillStream = PageStream<kBucket, 2, kPrefillWarps<kBucket>>;
template <int kBucket>
using PrefillSums = RowSums<kBucket / 16>;
template <typename Pairs, int kBucket>
using PrefillQueries = Queries<Pairs, kBucket, kBucket != 128>;
// Where the sums of a row's splits so far wait: shared memory while that is enough, else `out`.
template <int kBucket>
constexpr bool kTotalsInShared = kBucket <= 128;
// Shared memory: the ring, then of each warp the totals and queries that it keeps there. 64, 96 and
// 96 KB.
template <int kBucket>
constexpr uint32_t kTotalsBytes = kTotalsInShared<kBucket> ? kTileRows* kBucket * 4 : 0;
template <int kBucket>
constexpr uint32_t kWarpBytes =
    kTotalsBytes<kBucket> + PrefillQueries<HalfPairs, kBucket>::kStagedBytes;
template <int kBucket>
constexpr uint32_t kPrefillBytes =
    PrefillStream<kBucket>::kBytes + kPrefillWarps<kBucket>* kWarpBytes<kBucket>;

// One of the lane's rows.
struct PrefillRow {
  int position = -1;  // -1: no row
  int split_slots = kSplitSlots;
  float* out = nullptr;  // its value 2t
  float largest = 0;     // of the splits before this one
  float weights = 0;
};

// After the tile that begins at `slot`: closes the row's split if that ends here. shared: the
// warp's.
template <int kBucket>
__device__ __forceinline__ void CloseSplit(int slot, int head_dim, int h, char* shared,
                                           PrefillRow* row, PrefillSums<kBucket>* sums) {
  const bool last = slot + kTileSlots > row->position;
  const bool ends = ((slot + kTileSlots) & (row->split_slots - 1)) == 0;
  if (slot > row->position || !(last || ends)) return;
  // The values of the splits before this one, 8 of d apart.
  constexpr int kStep = kTotalsInShared<kBucket> ? 4 * kWarpLanes : 8;
  float* totals = kTotalsInShared<kBucket> ? reinterpret_cast<float*>(shared) +
                                                 (h * kWarpLanes + threadIdx.x % kWarpLanes) * 2
                                           : row->out;
  float factor = 1;
  float weights = sums->weights[2 * h];
  float largest = sums->largest[h];
  const bool merges = slot >= row->split_slots;
  const Bases bases = merges ? CommonBase(row->largest, largest) : Bases{largest, 0, 1};
  if (merges) weights = MergeValue(bases, row->weights, weights);
  if (last) factor = 1.0f / weights;
#pragma unroll
  for (int n = 0; n < kBucket / 8; ++n) {
    if (8 * n >= head_dim) continue;
    float* total = totals + n * kStep;
    float* to = last ? row->out + 8 * n : total;
    for (int i = 0; i < 2; ++i) {
      float value = sums->values[n][2 * h + i];
      if (merges) value = MergeValue(bases, total[i], value);
      to[i] = value * factor;
    }
  }
  row->largest = bases.largest;
  row->weights = weights;
  sums->Clear(h);
}

// This lane's rows, and their queries. shared: the warp's.
template <typename Pairs, int kBucket>
__device__ __forceinline__ void StartRows(const PagedTask& task, const DeviceSequence& sequence,
                                          int first, char* shared, PrefillRow (&rows)[2],
                                          PrefillQueries<Pairs, kBucket>* queries) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int head_dim = task.cache.head_dim;
  const float* q[2] = {nullptr, nullptr};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = first + lane / 4 + 8 * h;
    const int token = r / task.heads_per_kv;
    if (token >= sequence.num_rows) continue;
    const int head = static_cast<int>(blockIdx.y) * task.heads_per_kv + r % task.heads_per_kv;
    const int64_t step_row = sequence.first_row + token;
    q[h] = task.q + step_row * task.q_stride + head * head_dim;
    rows[h].position = sequence.start + token;
    rows[h].split_slots = SplitSlots(rows[h].position + 1);
    rows[h].out = task.out + step_row * task.out_stride + head * head_dim + lane % 4 * 2;
  }
  queries->Load(q, head_dim, shared + kTotalsBytes<kBucket>);
  queries->scale[0] *= task.scale;
  queries->scale[1] *= task.scale;
}

// How many keys the rows below end_row see.
__device__ __forceinline__ int EndOfKeys(const DeviceSequence& sequence, int heads_per_kv,
                                         int end_row) {
  const int last = Least(end_row, sequence.num_rows * heads_per_kv) - 1;
  return sequence.start + last / heads_per_kv + 1;
}

// Grid: [tiles of rows, KV, sequences]; the longest rows first.
template <typename Pairs, int kBucket>
__global__ void __launch_bounds__(kPrefillWarps<kBucket>* kWarpLanes, kBucket == 64 ? 2 : 1)
    PrefillKernel(PagedTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int index = static_cast<int>(blockIdx.z);
  const DeviceSequence sequence = task.sequences[index];
  if (sequence.num_rows == 1 && task.takes_single == 0) return;
  constexpr int kBlockRows = kPrefillWarps<kBucket> * kTileRows;
  const int num_rows = sequence.num_rows * task.heads_per_kv;
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlockRows;
  if (first >= num_rows) return;
  const int warp_first = first + static_cast<int>(threadIdx.x) / kWarpLanes * kTileRows;
  const int end = EndOfKeys(sequence, task.heads_per_kv, first + kBlockRows);
  const int warp_end =
      warp_first < num_rows ? EndOfKeys(sequence, task.heads_per_kv, warp_first + kTileRows) : 0;
  char* shared = DynamicShared();
  PrefillStream<kBucket> stream(task.cache, shared, index, static_cast<int>(blockIdx.y), 0, end);
  stream.Issue(0);
  PrefillRow rows[2];
  PrefillQueries<Pairs, kBucket> queries;
  char* warp_shared =
      shared + PrefillStream<kBucket>::kBytes + threadIdx.x / kWarpLanes * kWarpBytes<kBucket>;
  StartRows<Pairs, kBucket>(task, sequence, warp_first, warp_shared, rows, &queries);
  PrefillSums<kBucket> sums;
  sums.Clear();
  for (int slot = 0; slot < end; slot += kTileSlots) {
    const int part = slot / kTileSlots * 2;
    uint32_t weights[kTilePages][4];
    stream.Await();
    stream.Issue(part + 1);
    if (slot < warp_end) {
      WeighTile(queries, PageKeys<kBucket>(stream.Part(part)), queries.scale,
                {rows[0].position - slot, rows[1].position - slot}, weights, &sums);
    }
    stream.Await();
    stream.Issue(part + 2);
    if (slot >= warp_end) continue;
#pragma unroll
    for (int page = 0; page < kTilePages; ++page) {
      sums.template Add<Pairs, kBucket>(weights[page], stream.Part(part + 1), page, 0, 1);
    }
    CloseSplit<kBucket>(slot, task.cache.head_dim, 0, warp_shared, &rows[0], &sums);
    CloseSplit<kBucket>(slot, task.cache.head_dim, 1, warp_shared, &rows[1], &sums);
  }
}

// --- launches ---

constexpr int kSliceSequences = 64;
constexpr int kMaxGroup = kTileRows;  // heads to a KV head that DecodeKernel takes

template <typename Pairs, int kBucket>
void LaunchDecode(Tape* tape, PagedTask task, uint32_t kv_heads, int num_sequences) {
  constexpr uint32_t kShared = DecodeStream<kBucket>::kBytes + sizeof(Exchange);
  const auto splits = static_cast<uint32_t>(task.max_splits);
  for (int first = 0; first < num_sequences; first += kSliceSequences) {
    const int left = num_sequences - first;
    const auto count = static_cast<uint32_t>(left < kSliceSequences ? left : kSliceSequences);
    task.first_sequence = first;
    Launch(tape, &DecodeKernel<Pairs, kBucket>, {splits, kv_heads, count},
           {kDecodeWarps * kWarpLanes, 1, 1}, {kShared, true}, task);
    if (splits == 1) continue;
    Launch(tape, &CombineKernel, {static_cast<uint32_t>(task.num_heads), count, 1}, {128, 1, 1},
           {0, true}, task);
  }
}

template <typename Pairs, int kBucket>
void LaunchPaged(Tape* tape, const PagedTask& task, uint32_t kv_heads,
                 const DeviceSequences& sequences) {
  if (task.takes_single == 0) {
    LaunchDecode<Pairs, kBucket>(tape, task, kv_heads, sequences.num_sequences);
    if (sequences.max_rows <= 1) return;
  }
  const int64_t rows = int64_t{sequences.max_rows} * task.heads_per_kv;
  Launch(tape, &PrefillKernel<Pairs, kBucket>,
         {CeilDiv(rows, kPrefillWarps<kBucket> * kTileRows), kv_heads,
          static_cast<uint32_t>(sequences.num_sequences)},
         {kPrefillWarps<kBucket> * kWarpLanes, 1, 1}, {kPrefillBytes<kBucket>, true}, task);
}

template <typename Pairs>
void LaunchByHeadDim(Tape* tape, const PagedTask& task, uint32_t kv_heads,
                     const DeviceSequences& sequences) {
  if (task.cache.head_dim <= 64) return LaunchPaged<Pairs, 64>(tape, task, kv_heads, sequences);
  if (task.cache.head_dim <= 128) return LaunchPaged<Pairs, 128>(tape, task, kv_heads, sequences);
  LaunchPaged<Pairs, 256>(tape, task, kv_heads, sequences);
}

}  // namespace

int64_t TiledScratchBytes(int64_t max_rows, int64_t max_context, int64_t max_heads,
                          int64_t max_head_dim) {
  const int64_t sequences = max_rows < kSliceSequences ? max_rows : kSliceSequences;
  const int64_t splits = MostSplits(max_context);
  if (splits <= 1) return 0;
  return sequences * max_heads * splits * (max_head_dim + 2) * int64_t{sizeof(float)};
}

void TiledPagedAttention(Tape* tape, const AttentionSetup& setup, const Activations& q,
                         const DeviceSequences& sequences, const KvCache& cache, int64_t layer,
                         float scale, const Activations& out) {
  constexpr float kLog2E = 1.44269504f;
  const int64_t group = q.cols / cache.head_dim / cache.num_kv_heads;
  const int64_t room = kPageSlots * sequences.page_stride;
  const int64_t context = room < setup.max_context ? room : setup.max_context;
  const bool lone = sequences.num_sequences == 1 && sequences.max_rows > 1;
  PagedTask task = {ViewOf(cache, sequences, layer),
                    sequences.sequences,
                    q.data,
                    out.data,
                    reinterpret_cast<float*>(setup.scratch),
                    q.stride,
                    out.stride,
                    scale * kLog2E,
                    static_cast<int32_t>(q.cols / cache.head_dim),
                    static_cast<int32_t>(group),
                    0,
                    static_cast<int32_t>(MostSplits(context)),
                    lone || group > kMaxGroup ? 1 : 0};
  const auto kv_heads = static_cast<uint32_t>(cache.num_kv_heads);
  if (cache.dtype == DType::kF16) {
    return LaunchByHeadDim<HalfPairs>(tape, task, kv_heads, sequences);
  }
  LaunchByHeadDim<Bf16Pairs>(tape, task, kv_heads, sequences);
}

}  // namespace nibble::cuda
