// Attention in fp32 throughout, from pages of any type or from rows: compute=fp32, fp32 caches and
// head sizes that the tensor cores' kernels do not take. A block is one row and one query head; its
// four warps deal the keys among themselves, 32 at a time, and a lane holds one key's score.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_pages.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kLanes = 32;
constexpr int kMaxHeadDim = 256;
constexpr int kLaneValues = kMaxHeadDim / kLanes;
constexpr int kStateFloats = kMaxHeadDim + 2;  // sum of values, largest score, sum of weights
constexpr uint32_t kAll = 0xffffffffu;

// One sequence's keys and values of one head in pages.
template <typename Stored>
struct PagedKeys {
  struct Task {
    CacheView cache;
  };
  const CacheView& cache;
  int sequence;
  int head;

  __device__ const typename Stored::Bits* Page(int slot) const {
    const char* page = PageOf(cache, sequence, slot / kSlots);
    return reinterpret_cast<const typename Stored::Bits*>(page) +
           2 * head * static_cast<int64_t>(kSlots * cache.head_dim);
  }
  // Σ_d q[d] · K[slot][d], d ascending.
  __device__ float Score(const float* q, int slot) const {
    const typename Stored::Bits* key = Page(slot) + slot % kSlots;
    float sum = 0;
    for (int d = 0; d < cache.head_dim; ++d) {
      sum = fmaf(q[d], Stored::Read(key[d * kSlots]), sum);
    }
    return sum;
  }
  __device__ const typename Stored::Bits* Values(int slot) const {
    return Page(slot) + (kSlots + slot % kSlots) * cache.head_dim;
  }
  static __device__ float Read(typename Stored::Bits value) { return Stored::Read(value); }
};

// The same in rows of fp32.
struct RowKeys {
  struct Task {
    const float* k;
    const float* v;
    int64_t k_stride;
    int64_t v_stride;
    int64_t head_dim;
  };
  const Task& task;
  int first_row;
  int head;

  __device__ float Score(const float* q, int slot) const {
    const float* key = task.k + (first_row + slot) * task.k_stride + head * task.head_dim;
    float sum = 0;
    for (int d = 0; d < task.head_dim; ++d) sum = fmaf(q[d], key[d], sum);
    return sum;
  }
  __device__ const float* Values(int slot) const {
    return task.v + (first_row + slot) * task.v_stride + head * task.head_dim;
  }
  static __device__ float Read(float value) { return value; }
};

struct ExactTask {
  const DeviceSequence* sequences;
  const RowPlace* places;
  const float* q;
  float* out;
  int64_t q_stride;
  int64_t out_stride;
  int32_t head_dim;
  int32_t heads_per_kv;
  float scale;
  int32_t unused;
};

__device__ __forceinline__ float WarpMax(float x) {
  for (int step = kLanes / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAll, x, step));
  return x;
}
__device__ __forceinline__ float WarpSum(float x) {
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

// This warp's share of `count` keys: online softmax over its chunks of 32, ascending.
template <typename Keys>
__device__ void AttendChunks(const Keys& keys, const float* q, int head_dim, int count, float scale,
                             float* state) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  float largest = -INFINITY;
  float total = 0;
  float sum[kLaneValues] = {};
  for (int first = warp * kLanes; first < count; first += kWarps * kLanes) {
    const int slot = first + lane;
    const float score = slot < count ? keys.Score(q, slot) * scale : -INFINITY;
    const float raised = fmaxf(largest, WarpMax(score));
    const float shrink = expf(largest - raised);
    const float weight = expf(score - raised);
    largest = raised;
    total = fmaf(total, shrink, WarpSum(weight));
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) sum[i] *= shrink;
    const int slots = Least(kLanes, count - first);
    for (int s = 0; s < slots; ++s) {
      const float w = __shfl_sync(kAll, weight, s);
      const auto* values = keys.Values(first + s);
#pragma unroll
      for (int i = 0; i < kLaneValues; ++i) {
        const int d = lane + i * kLanes;
        if (d < head_dim) sum[i] = fmaf(w, Keys::Read(values[d]), sum[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) state[lane + i * kLanes] = sum[i];
  if (lane == 0) {
    state[kMaxHeadDim] = largest;
    state[kMaxHeadDim + 1] = total;
  }
}

// The warps' shares, added in order.
__device__ void WriteSum(const float* states, int head_dim, int count, float* out) {
  const int shares = Least(kWarps, (count + kLanes - 1) / kLanes);
  float largest = -INFINITY;
  for (int w = 0; w < shares; ++w) {
    largest = fmaxf(largest, states[w * kStateFloats + kMaxHeadDim]);
  }
  float total = 0;
  for (int w = 0; w < shares; ++w) {
    const float* state = states + w * kStateFloats;
    total = fmaf(state[kMaxHeadDim + 1], expf(state[kMaxHeadDim] - largest), total);
  }
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kWarps * kLanes) {
    float sum = 0;
    for (int w = 0; w < shares; ++w) {
      const float* state = states + w * kStateFloats;
      sum = fmaf(state[d], expf(state[kMaxHeadDim] - largest), sum);
    }
    out[d] = sum / total;
  }
}

template <typename Keys>
__device__ void AttendRow(const Keys& keys, const ExactTask& task, int row, int head, int count) {
  auto* q = reinterpret_cast<float*>(DynamicShared());
  float* states = q + kMaxHeadDim;
  for (int d = static_cast<int>(threadIdx.x); d < task.head_dim; d += kWarps * kLanes) {
    q[d] = task.q[row * task.q_stride + head * task.head_dim + d];
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  AttendChunks(keys, q, task.head_dim, count, task.scale, states + warp * kStateFloats);
  __syncthreads();
  WriteSum(states, task.head_dim, count, task.out + row * task.out_stride + head * task.head_dim);
}

// Grid of both: [rows, H].
template <typename Stored>
__global__ void ExactPagedKernel(ExactTask task, CacheView cache) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int row = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const RowPlace place = task.places[row];
  if (place.sequence < 0) return;
  const PagedKeys<Stored> keys = {cache, place.sequence, head / task.heads_per_kv};
  AttendRow(keys, task, row, head, place.position + 1);
}

__global__ void ExactEncoderKernel(ExactTask task, RowKeys::Task rows) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int row = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const RowPlace place = task.places[row];
  if (place.sequence < 0) return;
  const DeviceSequence sequence = task.sequences[place.sequence];
  const RowKeys keys = {rows, sequence.first_row, head};
  AttendRow(keys, task, row, head, sequence.num_rows);
}

constexpr LaunchOptions kOptions = {(kMaxHeadDim + kWarps * kStateFloats) * sizeof(float), true};

ExactTask TaskOf(const Activations& q, const DeviceSequences& sequences, int64_t head_dim,
                 int64_t kv_heads, float scale, const Activations& out) {
  return {sequences.sequences,
          sequences.places,
          q.data,
          out.data,
          q.stride,
          out.stride,
          static_cast<int32_t>(head_dim),
          static_cast<int32_t>(q.cols / head_dim / kv_heads),
          scale,
          0};
}

Dim3 GridOf(const DeviceSequences& sequences, const ExactTask& task, int64_t kv_heads) {
  return {static_cast<uint32_t>(sequences.num_rows),
          static_cast<uint32_t>(kv_heads * task.heads_per_kv), 1};
}

}  // namespace

void ExactPagedAttention(Tape* tape, const Activations& q, const DeviceSequences& sequences,
                         const KvCache& cache, int64_t layer, float scale, const Activations& out) {
  const ExactTask task = TaskOf(q, sequences, cache.head_dim, cache.num_kv_heads, scale, out);
  WithStored(cache.dtype, [&](auto stored) {
    Launch(tape, &ExactPagedKernel<decltype(stored)>, GridOf(sequences, task, cache.num_kv_heads),
           {kWarps * kLanes, 1, 1}, kOptions, task, ViewOf(cache, sequences, layer));
  });
}

void ExactEncoderAttention(Tape* tape, const Activations& q, const Activations& k,
                           const Activations& v, const DeviceSequences& sequences,
                           int64_t num_heads, float scale, const Activations& out) {
  const int64_t head_dim = q.cols / num_heads;
  const ExactTask task = TaskOf(q, sequences, head_dim, num_heads, scale, out);
  const RowKeys::Task rows = {k.data, v.data, k.stride, v.stride, head_dim};
  Launch(tape, &ExactEncoderKernel, GridOf(sequences, task, num_heads), {kWarps * kLanes, 1, 1},
         kOptions, task, rows);
}

}  // namespace nibble::cuda
