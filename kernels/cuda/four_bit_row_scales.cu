// A block takes a panel: 16 rows, 16 groups at a time. Codes are not read.
#include "cuda_machine.h"
#include "kernels/cuda/four_bit_row_scales.h"
#include "kernels/cuda/power_of_two.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPanel = static_cast<int>(kPanelRows);
constexpr int kLowest = -8;  // exponent of the least largest value that is left as it is

// The scale of the checkpoint's group `number`, which lies at `at`.
__device__ __forceinline__ float GroupScale(const FourBitView& w, int64_t number, int64_t at) {
  if (w.absmax != nullptr) return w.absmax[at];
  const int64_t groups = (w.n * w.k + w.group - 1) / w.group;
  const float product = w.map[w.absmax_codes[at]] * w.nested[number / 256];
  return product + w.nested[(groups + 255) / 256];
}

__device__ __forceinline__ float LargestLevel(const FourBitView& w) {
  float largest = 0;
  for (int i = 0; i < 16; ++i) largest = fmaxf(largest, fabsf(w.codebook[i]));
  return largest;
}

// The bits of the largest finite magnitude of every sixteenth group of row n, from group `i` on.
__device__ __forceinline__ uint32_t LargestOf(const FourBitView& w, int64_t n, int64_t i) {
  const int64_t first = n * w.k / w.group, end = ((n + 1) * w.k - 1) / w.group + 1;
  const float level = LargestLevel(w);
  uint32_t largest = 0;
  for (int64_t number = first + i; number < end; number += kThreads / kPanel) {
    const int64_t in_row = number - first;
    const int64_t at =
        w.straddles != 0 ? number : (n / kPanel * (end - first) + in_row) * kPanel + n % kPanel;
    const uint32_t magnitude = BitsOf(fabsf(GroupScale(w, number, at) * level));
    if (magnitude < kInfinityBits && magnitude > largest) largest = magnitude;
  }
  return largest;
}

__global__ void __launch_bounds__(kThreads)
    RowScalesKernel(FourBitView weight, int64_t first, int64_t count, float* scales) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  auto* const found = reinterpret_cast<uint32_t*>(DynamicShared());  // [kThreads]
  const int thread = static_cast<int>(threadIdx.x), row = thread % kPanel;
  const int64_t n = (first / kPanel + blockIdx.x) * kPanel + row;
  const bool wanted = n >= first && n < first + count;
  found[thread] = wanted ? LargestOf(weight, n, thread / kPanel) : 0;
  __syncthreads();
  if (thread >= kPanel || !wanted) return;
  uint32_t largest = 0;
  for (int i = row; i < kThreads; i += kPanel) largest = found[i] > largest ? found[i] : largest;
  scales[n - first] = PowerOfTwo(ExponentFor(largest, kLowest));
}

}  // namespace

void FourBitRowScales(Tape* tape, const FourBitView& weight, int64_t first, int64_t count,
                      float* scales) {
  const uint32_t panels = CeilDiv(first + count, kPanel) - static_cast<uint32_t>(first / kPanel);
  Launch(tape, RowScalesKernel, {panels, 1, 1}, {kThreads, 1, 1}, {kThreads * 4, true}, weight,
         first, count, scales);
}

}  // namespace nibble::cuda
