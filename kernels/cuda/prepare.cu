// One block a row: the row is read for its largest magnitude and, if it is long, once more for its
// values, then from cache.
#include "cuda_machine.h"
#include "kernels/cuda/power_of_two.h"
#include "kernels/cuda/prepare.h"

namespace nibble::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kKept = 4;     // pairs of a thread
constexpr int kLowest = -4;  // exponent of the least largest value that is left as it is

struct PrepareTask {
  const float* x;
  int64_t x_stride;
  int64_t k;
  uint16_t* values;
  float* scales;
  int64_t stride;
};

// The largest of all threads' values, in every thread.
__device__ __forceinline__ uint32_t BlockMax(uint32_t value) {
  auto* warps = reinterpret_cast<uint32_t*>(DynamicShared());  // [threads / 32]
  for (int step = 16; step > 0; step /= 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffff, value, step);
    value = other > value ? other : value;
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x / 32; ++i) value = warps[i] > value ? warps[i] : value;
  return value;
}

// Values 2i and 2i + 1 of a row, zeros past K.
__device__ __forceinline__ float2 LoadPair(const float* x, int64_t i, int64_t k) {
  return {2 * i < k ? x[2 * i] : 0.0f, 2 * i + 1 < k ? x[2 * i + 1] : 0.0f};
}

__device__ __forceinline__ uint32_t LargerFinite(uint32_t largest, float2 pair) {
  const uint32_t first = BitsOf(pair.x) & 0x7fffffff, second = BitsOf(pair.y) & 0x7fffffff;
  if (first < kInfinityBits && first > largest) largest = first;
  if (second < kInfinityBits && second > largest) largest = second;
  return largest;
}

// Each thread keeps its first pairs in registers, all loaded at once: a short row is read once.
__global__ void __launch_bounds__(kMaxThreads) HalfKernel(PrepareTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int64_t row = blockIdx.x, num_pairs = task.stride / 2, threads = blockDim.x;
  const float* const x = task.x + row * task.x_stride;
  float2 kept[kKept];
#pragma unroll
  for (int j = 0; j < kKept; ++j) kept[j] = LoadPair(x, threadIdx.x + j * threads, task.k);
  uint32_t largest = 0;
#pragma unroll
  for (int j = 0; j < kKept; ++j) largest = LargerFinite(largest, kept[j]);
  const int64_t first_left = threadIdx.x + kKept * threads;
  for (int64_t i = first_left; i < num_pairs; i += threads) {
    largest = LargerFinite(largest, LoadPair(x, i, task.k));
  }
  const int e = ExponentFor(BlockMax(largest), kLowest);
  const float factor = PowerOfTwo(-e);
  auto* const pairs = reinterpret_cast<uint32_t*>(task.values + row * task.stride);
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int64_t i = threadIdx.x + j * threads;
    if (i < num_pairs) pairs[i] = PackHalf(kept[j].x * factor, kept[j].y * factor);
  }
  for (int64_t i = first_left; i < num_pairs; i += threads) {
    const float2 pair = LoadPair(x, i, task.k);
    pairs[i] = PackHalf(pair.x * factor, pair.y * factor);
  }
  if (threadIdx.x == 0) task.scales[row] = PowerOfTwo(e);
}

__global__ void __launch_bounds__(kMaxThreads) Bf16Kernel(PrepareTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int64_t row = blockIdx.x;
  const float* const x = task.x + row * task.x_stride;
  auto* const pairs = reinterpret_cast<uint32_t*>(task.values + row * task.stride);
  for (int64_t i = threadIdx.x; i < task.stride / 2; i += blockDim.x) {
    const float2 pair = LoadPair(x, i, task.k);
    pairs[i] = PackBf16(pair.x, pair.y);
  }
}

// As many threads as leave each of them 8 values or more.
uint32_t ThreadsFor(int64_t k) {
  uint32_t threads = 128;
  while (threads < kMaxThreads && threads * 8 < k) threads *= 2;
  return threads;
}

}  // namespace

void PrepareHalf(Tape* tape, const Activations& x, const PreparedRows& out) {
  const PrepareTask task = {x.data,
                            x.stride,
                            x.cols,
                            const_cast<uint16_t*>(out.values),
                            const_cast<float*>(out.scales),
                            out.stride};
  const uint32_t threads = ThreadsFor(x.cols);
  Launch(tape, HalfKernel, {static_cast<uint32_t>(x.rows), 1, 1}, {threads, 1, 1},
         {threads / 32 * 4, true}, task);
}

void PrepareBf16(Tape* tape, const Activations& x, uint16_t* out, int64_t stride) {
  const PrepareTask task = {x.data, x.stride, x.cols, out, nullptr, stride};
  Launch(tape, Bf16Kernel, {static_cast<uint32_t>(x.rows), 1, 1}, {ThreadsFor(x.cols), 1, 1},
         {0, true}, task);
}

}  // namespace nibble::cuda
