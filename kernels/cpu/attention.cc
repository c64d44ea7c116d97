// A unit of work is some queries of one sequence that share a KV head. Keys are summed in splits of
// kSplitPages pages at absolute page numbers; with few units the splits themselves are shared out,
// else one worker walks them all: the arithmetic is the same.
#include "kernels/cpu/attention.h"

#include <algorithm>

#include "kernels/cpu/packing.h"

namespace nibble {
namespace {

constexpr int64_t kSplitSlots = kSplitPages * kPageSlots;
static_assert(kPageSlots == kLanes);

int64_t StateBytes(int64_t head_dim) { return StateFloats(head_dim) * int64_t{sizeof(float)}; }

// The queries of one sequence and one KV head are numbered row by row, head by head.
struct Unit {
  SequenceRows sequence;
  int64_t kv_head = 0;
  int64_t first = 0, end = 0;  // of those queries
};

// One call's shape.
struct Shape {
  std::span<const SequenceRows> sequences;
  int64_t head_dim = 0;
  int64_t kv_heads = 0;
  int64_t group = 0;  // query heads of a KV head

  int64_t Queries(const SequenceRows& sequence) const { return sequence.num_rows * group; }
  int64_t UnitsOf(const SequenceRows& sequence) const {
    return kv_heads * CeilDiv(Queries(sequence), kMaxQueries);
  }
  int64_t NumUnits() const {
    int64_t units = 0;
    for (const SequenceRows& sequence : sequences) units += UnitsOf(sequence);
    return units;
  }
  // Unit number `index`, counting sequence by sequence, then KV head by KV head.
  Unit At(int64_t index) const {
    for (const SequenceRows& sequence : sequences) {
      const int64_t units = UnitsOf(sequence);
      if (index >= units) {
        index -= units;
        continue;
      }
      const int64_t blocks = units / kv_heads;
      const int64_t first = index % blocks * kMaxQueries;
      return {sequence, index / blocks, first, std::min(first + kMaxQueries, Queries(sequence))};
    }
    return {};
  }
  // What the arithmetic of all sequences costs, roughly.
  int64_t Work() const {
    int64_t work = 0;
    for (const SequenceRows& s : sequences) work += Queries(s) * (s.start + s.num_rows);
    return work * kv_heads * head_dim * 2;
  }
};

// Positions up to this one matter to the unit.
int64_t LastPosition(const Unit& unit, int64_t group) {
  return unit.sequence.start + (unit.end - 1) / group;
}

int64_t NumSplits(int64_t last_position) { return last_position / kSplitSlots + 1; }

float* HeadRow(const Activations& x, const Shape& shape, const Unit& unit, int64_t query) {
  const int64_t row = unit.sequence.first_row + query / shape.group;
  return x.Row(row) + (unit.kv_head * shape.group + query % shape.group) * shape.head_dim;
}

// Points the task at the unit's queries. Encoder queries all see `last`; others their own position.
void SetQueries(const Shape& shape, const Unit& unit, const Activations& q, bool causal,
                AttentionTask* task) {
  task->head_dim = shape.head_dim;
  task->num_queries = unit.end - unit.first;
  for (int64_t i = 0; i < task->num_queries; ++i) {
    const int64_t query = unit.first + i;
    task->q[i] = HeadRow(q, shape, unit, query);
    task->positions[i] =
        causal ? unit.sequence.start + query / shape.group : unit.sequence.num_rows - 1;
  }
}

void RunSplit(const CpuContext& context, int64_t split, int64_t last_position, float* states,
              AttentionTask* task) {
  task->first_page = split * kSplitPages;
  task->end_page = std::min((split + 1) * kSplitPages, last_position / kPageSlots + 1);
  task->states = states;
  context.isa->attend(task);
}

// All splits, ascending, on one worker; then the results. `states` has room for twice the queries.
void RunSplitsInOrder(const CpuContext& context, const Shape& shape, const Unit& unit,
                      int64_t last_position, float* states, AttentionTask* task,
                      const Activations& out) {
  const int64_t floats = StateFloats(shape.head_dim);
  float* part = states + task->num_queries * floats;
  RunSplit(context, 0, last_position, states, task);
  for (int64_t split = 1; split < NumSplits(last_position); ++split) {
    RunSplit(context, split, last_position, part, task);
    for (int64_t i = 0; i < task->num_queries; ++i) {
      context.isa->attend_merge(states + i * floats, part + i * floats, shape.head_dim);
    }
  }
  for (int64_t i = 0; i < task->num_queries; ++i) {
    context.isa->attend_finish(states + i * floats, shape.head_dim,
                               HeadRow(out, shape, unit, unit.first + i));
  }
}

KvPages PagesOf(const KvCache& cache, int64_t layer, const Unit& unit) {
  const int64_t size = SizeOf(cache.dtype);
  const int64_t half_bytes = cache.head_dim * kPageSlots * size;
  const char* k = static_cast<const char*>(cache.data) +
                  layer * cache.num_pages * cache.LayerPageBytes() + unit.kv_head * 2 * half_bytes;
  return {k,
          cache.LayerPageBytes(),
          k + half_bytes,
          cache.LayerPageBytes(),
          cache.head_dim * size,
          unit.sequence.pages,
          LaneTypeOf(cache.dtype)};
}

// Paged attention when one worker per unit is enough.
void AttendByUnit(const CpuContext& context, const Shape& shape, const Activations& q,
                  const KvCache& cache, int64_t layer, float scale, const Activations& out) {
  context.Run(shape.NumUnits(), shape.Work(), [&](int64_t index, int worker) {
    const Unit unit = shape.At(index);
    AttentionTask task;
    SetQueries(shape, unit, q, true, &task);
    task.kv = PagesOf(cache, layer, unit);
    task.scale = scale;
    char* states = context.WorkerScratch(worker, 2 * kMaxQueries * StateBytes(shape.head_dim));
    RunSplitsInOrder(context, shape, unit, LastPosition(unit, shape.group),
                     reinterpret_cast<float*>(states), &task, out);
  });
}

// Splits of few units, each with its own states: unit by unit, split by split, query by query.
struct SharedSplits {
  const Shape& shape;
  int64_t max_splits = 0;

  explicit SharedSplits(const Shape& of) : shape(of) {
    for (const SequenceRows& s : shape.sequences) {
      max_splits = std::max(max_splits, NumSplits(s.start + s.num_rows - 1));
    }
  }
  int64_t Bytes() const {
    return shape.NumUnits() * max_splits * MostQueries() * StateBytes(shape.head_dim);
  }
  int64_t MostQueries() const {
    int64_t most = 0;
    for (const SequenceRows& s : shape.sequences) most = std::max(most, shape.Queries(s));
    return std::min(most, kMaxQueries);
  }
  float* States(char* scratch, int64_t unit, int64_t split) const {
    const int64_t index = (unit * max_splits + split) * MostQueries();
    return reinterpret_cast<float*>(scratch + index * StateBytes(shape.head_dim));
  }
};

void AttendBySplit(const CpuContext& context, const SharedSplits& splits, const Activations& q,
                   const KvCache& cache, int64_t layer, float scale, const Activations& out) {
  const Shape& shape = splits.shape;
  const int64_t units = shape.NumUnits();
  context.pool->Run(units * splits.max_splits, [&](int64_t index, int) {
    const int64_t split = index % splits.max_splits;
    const Unit unit = shape.At(index / splits.max_splits);
    const int64_t last_position = LastPosition(unit, shape.group);
    if (split >= NumSplits(last_position)) return;
    AttentionTask task;
    SetQueries(shape, unit, q, true, &task);
    task.kv = PagesOf(cache, layer, unit);
    task.scale = scale;
    float* states = splits.States(context.scratch, index / splits.max_splits, split);
    RunSplit(context, split, last_position, states, &task);
  });
  const int64_t floats = StateFloats(shape.head_dim);
  for (int64_t index = 0; index < units; ++index) {
    const Unit unit = shape.At(index);
    float* total = splits.States(context.scratch, index, 0);
    const int64_t num_splits = NumSplits(LastPosition(unit, shape.group));
    for (int64_t i = 0; i < unit.end - unit.first; ++i) {
      for (int64_t split = 1; split < num_splits; ++split) {
        const float* part = splits.States(context.scratch, index, split) + i * floats;
        context.isa->attend_merge(total + i * floats, part, shape.head_dim);
      }
      context.isa->attend_finish(total + i * floats, shape.head_dim,
                                 HeadRow(out, shape, unit, unit.first + i));
    }
  }
}

// One position of one KV head into its page: keys are transposed, so they scatter.
template <typename T>
void ScatterKey(const T* key, int64_t head_dim, T* page, int64_t slot) {
  for (int64_t d = 0; d < head_dim; ++d) page[d * kPageSlots + slot] = key[d];
}

void StoreKeyValue(const CpuContext& context, const KvCache& cache, char* head_page, int64_t slot,
                   const float* key, const float* value, char* converted) {
  const int64_t size = SizeOf(cache.dtype);
  const int64_t head_dim = cache.head_dim;
  const LaneType type = LaneTypeOf(cache.dtype);
  context.isa->store(value, head_dim, type, head_page + (kPageSlots + slot) * head_dim * size);
  if (cache.dtype == DType::kF32) {
    return ScatterKey(key, head_dim, reinterpret_cast<float*>(head_page), slot);
  }
  context.isa->store(key, head_dim, type, converted);
  ScatterKey(reinterpret_cast<const uint16_t*>(converted), head_dim,
             reinterpret_cast<uint16_t*>(head_page), slot);
}

// Keys of one head and sequence as fp32 pages: [page][head_dim][16].
void TransposeKeys(const Activations& k, const SequenceRows& sequence, int64_t column,
                   int64_t head_dim, float* pages) {
  for (int64_t row = 0; row < sequence.num_rows; ++row) {
    float* page = pages + row / kPageSlots * head_dim * kPageSlots;
    ScatterKey(k.Row(sequence.first_row + row) + column, head_dim, page, row % kPageSlots);
  }
}

int64_t TransposedBytes(int64_t rows, int64_t head_dim) {
  return CeilDiv(rows, kPageSlots) * kPageSlots * head_dim * int64_t{sizeof(float)};
}

int64_t RopeBytes(int64_t head_dim) { return AlignScratch(head_dim * int64_t{sizeof(float)}) * 2; }

int64_t NumRows(std::span<const SequenceRows> sequences) {
  int64_t rows = 0;
  for (const SequenceRows& sequence : sequences) rows += sequence.num_rows;
  return rows;
}

}  // namespace

int64_t AttentionScratchBytes(const BackendLimits& limits, int num_threads) {
  const int64_t state = StateBytes(limits.max_head_dim);
  const int64_t rows = std::min(limits.max_rows, limits.max_context);
  const int64_t worker =
      std::max(2 * kMaxQueries * state + TransposedBytes(rows, limits.max_head_dim),
               RopeBytes(limits.max_head_dim));
  // Room to share the splits of one long sequence's newest row.
  const int64_t shared =
      limits.max_context == 0 ? 0 : limits.max_heads * NumSplits(limits.max_context - 1) * state;
  return std::max(AlignScratch(worker) * num_threads, AlignScratch(shared));
}

void CpuRopeAndStore(const CpuContext& context, const Activations& q, const Activations& k,
                     const Activations& v, std::span<const float> inv_freq,
                     std::span<const SequenceRows> sequences, const KvCache& cache, int64_t layer) {
  const int64_t head_dim = cache.head_dim;
  const int64_t half = head_dim / 2;
  const int64_t head_bytes = 2 * head_dim * kPageSlots * SizeOf(cache.dtype);
  char* const layer_pages =
      static_cast<char*>(cache.data) + layer * cache.num_pages * cache.LayerPageBytes();
  const auto do_row = [&](const SequenceRows& sequence, int64_t i, int worker) {
    char* scratch = context.WorkerScratch(worker, RopeBytes(head_dim));
    float* cosines = reinterpret_cast<float*>(scratch);
    float* sines = cosines + half;
    char* converted = scratch + RopeBytes(head_dim) / 2;
    const int64_t row = sequence.first_row + i;
    const int64_t position = sequence.start + i;
    context.isa->rope_angles(static_cast<float>(position), inv_freq.data(), half, cosines, sines);
    for (int64_t column = 0; column < q.cols; column += head_dim) {
      context.isa->rope_rotate(q.Row(row) + column, cosines, sines, half);
    }
    char* page = layer_pages + sequence.pages[position / kPageSlots] * cache.LayerPageBytes();
    for (int64_t head = 0; head < cache.num_kv_heads; ++head) {
      float* key = k.Row(row) + head * head_dim;
      context.isa->rope_rotate(key, cosines, sines, half);
      StoreKeyValue(context, cache, page + head * head_bytes, position % kPageSlots, key,
                    v.Row(row) + head * head_dim, converted);
    }
  };
  const int64_t rows = NumRows(sequences);
  constexpr int64_t kRowsPerUnit = 16;
  const int64_t work = rows * (q.cols + k.cols + v.cols) * 4;
  context.Run(CeilDiv(rows, kRowsPerUnit), work, [&](int64_t unit, int worker) {
    int64_t skip = unit * kRowsPerUnit;
    int64_t left = kRowsPerUnit;
    for (const SequenceRows& sequence : sequences) {
      for (int64_t i = skip; i < sequence.num_rows && left > 0; ++i, --left) {
        do_row(sequence, i, worker);
      }
      skip = std::max<int64_t>(skip - sequence.num_rows, 0);
    }
  });
}

void CpuPagedAttention(const CpuContext& context, const Activations& q,
                       std::span<const SequenceRows> sequences, const KvCache& cache, int64_t layer,
                       float scale, const Activations& out) {
  const int64_t heads = q.cols / cache.head_dim;
  const Shape shape = {sequences, cache.head_dim, cache.num_kv_heads, heads / cache.num_kv_heads};
  const SharedSplits splits(shape);
  const bool few = shape.NumUnits() < 2 * context.pool->num_threads();
  if (few && splits.max_splits > 1 && splits.Bytes() <= context.scratch_bytes) {
    AttendBySplit(context, splits, q, cache, layer, scale, out);
  } else {
    AttendByUnit(context, shape, q, cache, layer, scale, out);
  }
}

void CpuEncoderAttention(const CpuContext& context, const Activations& q, const Activations& k,
                         const Activations& v, std::span<const SequenceRows> sequences,
                         int64_t num_heads, float scale, const Activations& out) {
  const int64_t head_dim = q.cols / num_heads;
  const Shape shape = {sequences, head_dim, num_heads, 1};
  int64_t longest = 0;
  for (const SequenceRows& s : sequences) longest = std::max(longest, s.num_rows);
  const int64_t state_bytes = 2 * kMaxQueries * StateBytes(head_dim);
  const int64_t worker_bytes = state_bytes + TransposedBytes(longest, head_dim);
  const int64_t units = static_cast<int64_t>(sequences.size()) * num_heads;
  context.Run(units, shape.Work(), [&](int64_t index, int worker) {
    const SequenceRows& sequence = sequences[static_cast<size_t>(index / num_heads)];
    if (sequence.num_rows == 0) return;
    const int64_t head = index % num_heads;
    char* scratch = context.WorkerScratch(worker, worker_bytes);
    float* keys = reinterpret_cast<float*>(scratch + state_bytes);
    TransposeKeys(k, sequence, head * head_dim, head_dim, keys);
    const int64_t row_bytes = v.stride * int64_t{sizeof(float)};
    AttentionTask task;
    task.scale = scale;
    task.kv = {reinterpret_cast<const char*>(keys),
               head_dim * kPageSlots * int64_t{sizeof(float)},
               reinterpret_cast<const char*>(v.Row(sequence.first_row) + head * head_dim),
               kPageSlots * row_bytes,
               row_bytes,
               nullptr,
               kLaneF32};
    for (int64_t first = 0; first < sequence.num_rows; first += kMaxQueries) {
      const Unit unit = {sequence, head, first, std::min(first + kMaxQueries, sequence.num_rows)};
      SetQueries(shape, unit, q, false, &task);
      RunSplitsInOrder(context, shape, unit, sequence.num_rows - 1,
                       reinterpret_cast<float*>(scratch), &task, out);
    }
  });
}

}  // namespace nibble
