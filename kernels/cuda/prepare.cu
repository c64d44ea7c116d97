// One block a row: the row is read once for its largest magnitude and once, from cache, for its
// values.
#include "cuda_machine.h"
#include "kernels/cuda/power_of_two.h"
#include "kernels/cuda/prepare.h"

namespace nibble::cuda {
namespace {

constexpr int kMaxThreads = 1024;
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

__global__ void __launch_bounds__(kMaxThreads) HalfKernel(PrepareTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int64_t row = blockIdx.x;
  const float* const x = task.x + row * task.x_stride;
  uint32_t largest = 0;
  for (int64_t k = threadIdx.x; k < task.k; k += blockDim.x) {
    const uint32_t magnitude = BitsOf(x[k]) & 0x7fffffff;
    if (magnitude < kInfinityBits && magnitude > largest) largest = magnitude;
  }
  const int e = ExponentFor(BlockMax(largest), kLowest);
  const float factor = PowerOfTwo(-e);
  auto* const pairs = reinterpret_cast<uint32_t*>(task.values + row * task.stride);
  for (int64_t i = threadIdx.x; i < task.stride / 2; i += blockDim.x) {
    const float first = 2 * i < task.k ? x[2 * i] * factor : 0.0f;
    const float second = 2 * i + 1 < task.k ? x[2 * i + 1] * factor : 0.0f;
    pairs[i] = PackHalf(first, second);
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
    const float first = 2 * i < task.k ? x[2 * i] : 0.0f;
    const float second = 2 * i + 1 < task.k ? x[2 * i + 1] : 0.0f;
    pairs[i] = PackBf16(first, second);
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
