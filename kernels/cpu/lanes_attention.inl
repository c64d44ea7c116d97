// Attention of some queries over pages of keys and values. Scores have one slot per lane (keys are
// transposed), sums of values one component per lane. A query's arithmetic depends on its own
// position and on absolute page numbers only: blocks of kSoftmaxPages pages share one maximum.
// Slots after a query's position may hold anything, NaN too: their scores are computed in lanes of
// their own and dropped, their values are never read.
#pragma once

#include "kernels/cpu/lanes_math.inl"

namespace nibble {
namespace {

constexpr int64_t kSoftmaxPages = 4;
constexpr int64_t kSoftmaxSlots = kSoftmaxPages * kLanes;
static_assert(kSplitPages % kSoftmaxPages == 0);

// A state: 16 lane sums, the maximum (16 floats, the first used), then the value sums.
constexpr int64_t kStateMax = kLanes;
constexpr int64_t kStateValues = 2 * kLanes;
static_assert(StateFloats(0) == kStateValues);

inline int64_t PageNumber(const KvPages& kv, int64_t page) {
  return kv.pages == nullptr ? page : kv.pages[page];
}

// What one block of pages gives to kQueries queries.
struct BlockWeights {
  float weight[kQueryBlock][kSoftmaxSlots];  // e^(score - maximum)
  float rescale[kQueryBlock];                // of what came before
  int64_t slots[kQueryBlock];                // that the query sees
};

// scores[r][first + p] = q_r · K of pages first … first + kPages - 1 of the block.
template <LaneType kType, int kQueries, int kPages>
void Score(const AttentionTask& task, int64_t block, int64_t first, int64_t q0,
           V16 (*scores)[kSoftmaxPages]) {
  constexpr int64_t kLine = kLanes * (kType == kLaneF32 ? 4 : 2);
  const char* k[kPages];
  for (int p = 0; p < kPages; ++p) {
    k[p] = task.kv.k + PageNumber(task.kv, block + first + p) * task.kv.k_page_bytes;
  }
  V16 sum[kQueries][kPages];
  for (auto& row : sum) {
    for (V16& s : row) s = Zero();
  }
  for (int64_t d = 0; d < task.head_dim; ++d) {
    V16 line[kPages];
    for (int p = 0; p < kPages; ++p) line[p] = LoadAs<kType>(k[p] + d * kLine);
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
      const V16 q = Set1(task.q[q0 + r][d]);
#pragma GCC unroll 4
      for (int p = 0; p < kPages; ++p) sum[r][p] = Fma(line[p], q, sum[r][p]);
    }
  }
  for (int r = 0; r < kQueries; ++r) {
    for (int p = 0; p < kPages; ++p) scores[r][first + p] = sum[r][p];
  }
}

// All pages of the block, kPages at a time, then fewer.
template <LaneType kType, int kQueries, int kPages>
void ScorePages(const AttentionTask& task, int64_t block, int64_t page, int64_t pages, int64_t q0,
                V16 (*scores)[kSoftmaxPages]) {
  for (; page + kPages <= pages; page += kPages) {
    Score<kType, kQueries, kPages>(task, block, page, q0, scores);
  }
  if constexpr (kPages > 1) {
    if (page < pages) ScorePages<kType, kQueries, kPages / 2>(task, block, page, pages, q0, scores);
  }
}

// The online softmax's step: from the scores of one block to weights, and the state's maximum and
// lane sums.
void Weigh(V16* scores, float scale, int64_t slots, float* state, float* weight, float* rescale) {
  const int64_t pages = (slots + kLanes - 1) / kLanes;
  V16 max = Set1(-kInfinity);
  for (int64_t p = 0; p < pages; ++p) {
    const M16 seen = FirstLanes(AtMostLanes(slots - p * kLanes));
    scores[p] = Choose(seen, Mul(scores[p], Set1(scale)), Set1(-kInfinity));
    max = Max(scores[p], max);
  }
  const float old_max = state[kStateMax];
  const float block_max = MaxLanes(max);
  const float new_max = old_max > block_max ? old_max : block_max;
  const bool first = old_max == -kInfinity && new_max > -kInfinity;  // e^-inf is exactly 0
  const V16 factor = first ? Zero() : Exp(Set1(old_max - new_max));
  V16 sums = Mul(Load(state), factor);
  for (int64_t p = 0; p < pages; ++p) {
    const M16 seen = FirstLanes(AtMostLanes(slots - p * kLanes));
    const V16 e = Choose(seen, Exp(Sub(scores[p], Set1(new_max))), Zero());
    sums = Add(sums, e);
    Store(weight + p * kLanes, e);
  }
  Store(state, sums);
  state[kStateMax] = new_max;
  float lanes[kLanes];
  Store(lanes, factor);
  *rescale = lanes[0];
}

// values_r[d …] = values_r · rescale_r + Σ weight_r[slot] · V[slot][d …], slots [begin, end) of the
// block ascending, for kQueries queries from r0 and kVectors · 16 components (the last vector may
// be short).
template <LaneType kType, int kQueries, int kVectors>
void AddValues(const AttentionTask& task, int64_t block, int64_t q0, int64_t r0, int64_t d,
               int64_t begin, int64_t end, const BlockWeights& weights, const float* rescale) {
  constexpr int64_t kBytes = kType == kLaneF32 ? 4 : 2;
  const int64_t last = AtMostLanes(task.head_dim - d - (kVectors - 1) * kLanes);
  const int64_t floats = StateFloats(task.head_dim);
  float* values = task.states + (q0 + r0) * floats + kStateValues + d;
  V16 sum[kQueries][kVectors];
  for (int r = 0; r < kQueries; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      sum[r][i] = Mul(Load(values + r * floats + i * kLanes), Set1(rescale[r]));
    }
  }
  while (begin < end) {  // a page
    const int64_t page_end = (begin / kLanes + 1) * kLanes;
    const int64_t stop = end < page_end ? end : page_end;
    const char* v = task.kv.v + PageNumber(task.kv, block + begin / kLanes) * task.kv.v_page_bytes +
                    begin % kLanes * task.kv.v_slot_bytes + d * kBytes;
    for (; begin < stop; ++begin, v += task.kv.v_slot_bytes) {
      V16 line[kVectors];
      for (int i = 0; i < kVectors - 1; ++i) line[i] = LoadAs<kType>(v + i * kLanes * kBytes);
      const char* tail = v + (kVectors - 1) * kLanes * kBytes;
      line[kVectors - 1] = last == kLanes ? LoadAs<kType>(tail) : LoadAsN<kType>(tail, last);
#pragma GCC unroll 4
      for (int r = 0; r < kQueries; ++r) {
        const V16 weight = Set1(weights.weight[r0 + r][begin]);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) sum[r][i] = Fma(line[i], weight, sum[r][i]);
      }
    }
  }
  for (int r = 0; r < kQueries; ++r) {
    for (int i = 0; i < kVectors; ++i) Store(values + r * floats + i * kLanes, sum[r][i]);
  }
}

// All components from d on, kVectors vectors at a time, then fewer.
template <LaneType kType, int kQueries, int kVectors>
void AddAllValues(const AttentionTask& task, int64_t block, int64_t q0, int64_t r0, int64_t d,
                  int64_t begin, int64_t end, const BlockWeights& weights, const float* rescale) {
  for (; d + (kVectors - 1) * kLanes < task.head_dim; d += kVectors * kLanes) {
    AddValues<kType, kQueries, kVectors>(task, block, q0, r0, d, begin, end, weights, rescale);
  }
  if constexpr (kVectors > 1) {
    if (d >= task.head_dim) return;
    AddAllValues<kType, kQueries, kVectors / 2>(task, block, q0, r0, d, begin, end, weights,
                                                rescale);
  }
}

// One block of pages for kQueries queries from q0: scores, weights, values. Slots that all of them
// see are read once for all.
template <LaneType kType, int kQueries>
void AttendBlock(const AttentionTask& task, int64_t block, int64_t q0) {
  BlockWeights weights;
  int64_t most = 0, fewest = kSoftmaxSlots;
  const int64_t end = (task.end_page - block) * kLanes;
  for (int r = 0; r < kQueries; ++r) {
    int64_t slots = task.positions[q0 + r] + 1 - block * kLanes;
    slots = slots < 0 ? 0 : slots > kSoftmaxSlots ? kSoftmaxSlots : slots;
    slots = slots > end ? end : slots;
    weights.slots[r] = slots;
    most = slots > most ? slots : most;
    fewest = slots < fewest ? slots : fewest;
  }
  if (most == 0) return;
  V16 scores[kQueries][kSoftmaxPages];
  const int64_t pages = (most + kLanes - 1) / kLanes;
  ScorePages<kType, kQueries, kPageBlock>(task, block, 0, pages, q0, scores);

  for (int r = 0; r < kQueries; ++r) {
    weights.rescale[r] = 1;
    if (weights.slots[r] == 0) continue;
    float* state = task.states + (q0 + r) * StateFloats(task.head_dim);
    Weigh(scores[r], task.scale, weights.slots[r], state, weights.weight[r], &weights.rescale[r]);
  }
  AddAllValues<kType, kQueries, kVectorBlock>(task, block, q0, 0, 0, 0, fewest, weights,
                                              weights.rescale);
  const float one = 1;
  for (int r = 0; r < kQueries; ++r) {
    if (weights.slots[r] == fewest) continue;
    AddAllValues<kType, 1, kVectorBlock>(task, block, q0, r, 0, fewest, weights.slots[r], weights,
                                         &one);
  }
}

template <LaneType kType, int kQueries>
void AttendQueries(const AttentionTask& task, int64_t block, int64_t q0) {
  for (; q0 + kQueries <= task.num_queries; q0 += kQueries) {
    AttendBlock<kType, kQueries>(task, block, q0);
  }
  if constexpr (kQueries > 1) {
    if (q0 < task.num_queries) AttendQueries<kType, kQueries - 1>(task, block, q0);
  }
}

template <LaneType kType>
void AttendPages(const AttentionTask& task) {
  for (int64_t block = task.first_page; block < task.end_page; block += kSoftmaxPages) {
    AttendQueries<kType, kQueryBlock>(task, block, 0);
  }
}

void Attend(const AttentionTask* task) {
  const int64_t floats = StateFloats(task->head_dim);
  for (int64_t q = 0; q < task->num_queries; ++q) {
    float* state = task->states + q * floats;
    for (int64_t i = 0; i < floats; i += kLanes) Store(state + i, Zero());
    state[kStateMax] = -kInfinity;
  }
  switch (task->kv.type) {
    case kLaneF16:
      return AttendPages<kLaneF16>(*task);
    case kLaneBF16:
      return AttendPages<kLaneBF16>(*task);
    default:
      return AttendPages<kLaneF32>(*task);
  }
}

void AttendMerge(float* total, const float* part, int64_t head_dim) {
  const float old_max = total[kStateMax];
  const float part_max = part[kStateMax];
  if (part_max == -kInfinity) return;
  const float max = old_max > part_max ? old_max : part_max;
  const V16 old_factor = Exp(Set1(old_max - max));
  const V16 part_factor = Exp(Set1(part_max - max));
  Store(total, Fma(Load(part), part_factor, Mul(Load(total), old_factor)));
  total[kStateMax] = max;
  for (int64_t i = kStateValues; i < StateFloats(head_dim); i += kLanes) {
    Store(total + i, Fma(Load(part + i), part_factor, Mul(Load(total + i), old_factor)));
  }
}

void AttendFinish(const float* total, int64_t head_dim, float* out) {
  const V16 sum = Set1(SumLanes(Load(total)));
  for (int64_t i = 0; i < head_dim; i += kLanes) {
    StoreN(out + i, Div(Load(total + kStateValues + i), sum), AtMostLanes(head_dim - i));
  }
}

}  // namespace
}  // namespace nibble
