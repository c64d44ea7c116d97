// RopeAndStore: rotary positions and the writing of keys and values. A block takes 16 rows of the
// step and some heads. A key block collects its rows in shared memory, so that rows of one page
// leave together: 16 slots of one key component are neighbours.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_pages.h"

namespace nibble::cuda {
namespace {

constexpr int kRows = 16;
constexpr int kThreads = kRows * kRows;
constexpr int kQueryHeads = 8;  // of one block: they share cosines and sines

struct RopeTask {
  CacheView cache;
  const RowPlace* places;
  const float* inv_freq;
  float* q;
  float* k;
  const float* v;
  int64_t q_stride;
  int64_t k_stride;
  int64_t v_stride;
  int32_t num_rows;
  int32_t num_heads;
};

// Elements of a key row in shared memory: two more than it has, so that the same component of 16
// rows lies in different banks.
__host__ __device__ __forceinline__ int StagedStride(int head_dim) { return head_dim + 2; }

__device__ __forceinline__ void Rotate(float cosine, float sine, float* first, float* second) {
  const float a = *first;
  const float b = *second;
  *first = fmaf(a, cosine, -(b * sine));
  *second = fmaf(b, cosine, a * sine);
}

__device__ void RotateQueries(const RopeTask& task, int first_row, int first_head) {
  const int half = task.cache.head_dim / 2;
  const int end_head = Least(first_head + kQueryHeads, task.num_heads);
  const int rows = Least(kRows, task.num_rows - first_row);
  for (int index = static_cast<int>(threadIdx.x); index < rows * half; index += kThreads) {
    const int row = first_row + index / half;
    const int i = index % half;
    const RowPlace place = task.places[row];
    if (place.sequence < 0) continue;
    float cosine, sine;
    sincosf(static_cast<float>(place.position) * task.inv_freq[i], &sine, &cosine);
    float* q = task.q + row * task.q_stride + i;
    for (int head = first_head; head < end_head; ++head) {
      float* values = q + head * task.cache.head_dim;
      Rotate(cosine, sine, values, values + half);
    }
  }
}

// Rotates the keys of 16 rows and one head; their stored bits go to shared memory too.
template <typename Stored>
__device__ void RotateKeys(const RopeTask& task, int first_row, int head,
                           typename Stored::Bits* staged) {
  const int half = task.cache.head_dim / 2;
  const int rows = Least(kRows, task.num_rows - first_row);
  for (int index = static_cast<int>(threadIdx.x); index < rows * half; index += kThreads) {
    const int r = index / half;
    const int i = index % half;
    const RowPlace place = task.places[first_row + r];
    if (place.sequence < 0) continue;
    float cosine, sine;
    sincosf(static_cast<float>(place.position) * task.inv_freq[i], &sine, &cosine);
    float* k = task.k + (first_row + r) * task.k_stride + head * task.cache.head_dim + i;
    Rotate(cosine, sine, k, k + half);
    typename Stored::Bits* bits = staged + r * StagedStride(task.cache.head_dim) + i;
    bits[0] = Stored::Round(k[0]);
    bits[half] = Stored::Round(k[half]);
  }
}

// The head's place in the page of a row, from K[0] of slot 0 on; null for a row of no sequence.
template <typename Stored>
__device__ __forceinline__ typename Stored::Bits* HeadPage(const RopeTask& task, int row, int head,
                                                           int* slot) {
  if (row >= task.num_rows) return nullptr;
  const RowPlace place = task.places[row];
  if (place.sequence < 0) return nullptr;
  *slot = place.position % kSlots;
  char* page = PageOf(task.cache, place.sequence, place.position / kSlots);
  return reinterpret_cast<typename Stored::Bits*>(page) +
         2 * head * static_cast<int64_t>(kSlots * task.cache.head_dim);
}

// 16 threads on the same component of 16 keys, then 16 threads on the same row of values.
template <typename Stored>
__device__ void StoreRows(const RopeTask& task, int first_row, int head,
                          const typename Stored::Bits* staged) {
  constexpr int kStep = kThreads / kRows;
  const int head_dim = task.cache.head_dim;
  const int low = static_cast<int>(threadIdx.x) % kRows;
  const int high = static_cast<int>(threadIdx.x) / kRows;
  int slot = 0;
  if (auto* page = HeadPage<Stored>(task, first_row + low, head, &slot)) {
    const typename Stored::Bits* keys = staged + low * StagedStride(head_dim);
    for (int d = high; d < head_dim; d += kStep) page[d * kSlots + slot] = keys[d];
  }
  if (auto* page = HeadPage<Stored>(task, first_row + high, head, &slot)) {
    const float* values = task.v + (first_row + high) * task.v_stride + head * head_dim;
    typename Stored::Bits* to = page + (kSlots + slot) * head_dim;
    for (int d = low; d < head_dim; d += kRows) to[d] = Stored::Round(values[d]);
  }
}

// Grid: [ceil(rows / 16), ceil(H / 8) + KV].
template <typename Stored>
__global__ void RopeKernel(RopeTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int first_row = static_cast<int>(blockIdx.x) * kRows;
  const int query_blocks = (task.num_heads + kQueryHeads - 1) / kQueryHeads;
  const int block = static_cast<int>(blockIdx.y);
  if (block < query_blocks) return RotateQueries(task, first_row, block * kQueryHeads);
  auto* staged = reinterpret_cast<typename Stored::Bits*>(DynamicShared());
  RotateKeys<Stored>(task, first_row, block - query_blocks, staged);
  __syncthreads();
  StoreRows<Stored>(task, first_row, block - query_blocks, staged);
}

}  // namespace

void RopeAndStore(Tape* tape, const Activations& q, const Activations& k, const Activations& v,
                  const float* inv_freq, const DeviceSequences& sequences, const KvCache& cache,
                  int64_t layer) {
  const auto rows = static_cast<int32_t>(sequences.num_rows);
  const auto heads = static_cast<int32_t>(q.cols / cache.head_dim);
  const RopeTask task = {ViewOf(cache, sequences, layer),
                         sequences.places,
                         inv_freq,
                         q.data,
                         k.data,
                         v.data,
                         q.stride,
                         k.stride,
                         v.stride,
                         rows,
                         heads};
  const Dim3 grid = {CeilDiv(rows, kRows),
                     CeilDiv(heads, kQueryHeads) + static_cast<uint32_t>(cache.num_kv_heads), 1};
  WithStored(cache.dtype, [&](auto stored) {
    using Stored = decltype(stored);
    const int staged = kRows * StagedStride(static_cast<int>(cache.head_dim));
    const auto bytes =
        static_cast<uint32_t>(static_cast<size_t>(staged) * sizeof(typename Stored::Bits));
    Launch(tape, &RopeKernel<Stored>, grid, {kThreads, 1, 1}, {bytes, true}, task);
  });
}

}  // namespace nibble::cuda
