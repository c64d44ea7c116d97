// One thread takes a few columns, side by side with its neighbours', of some rows: often all scales
// are 1 and nothing is left to do, so finding that out must cost little.
#include "cuda_machine.h"
#include "kernels/cuda/dense_part.h"
#include "kernels/cuda/finish.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 4;  // of a thread
constexpr int kRows = 8;

__global__ void __launch_bounds__(kThreads) FinishKernel(FinishTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int64_t first_n = static_cast<int64_t>(blockIdx.y) * kColumns * kThreads + threadIdx.x;
  float column_scales[kColumns], biases[kColumns];
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int64_t n = first_n + i * kThreads;
    const bool scaled = task.column_scales != nullptr && n < task.cols;
    column_scales[i] = scaled ? task.column_scales[n] : 1.0f;
    biases[i] = n < task.cols ? BiasAt(task.bias, task.bias_type, n) : 0.0f;
  }
  const bool in_place = task.sums == task.out && task.bias == nullptr;
  for (int r = 0; r < kRows; ++r) {
    const int64_t m = static_cast<int64_t>(blockIdx.x) * kRows + r;
    if (m >= task.rows) return;
    const float row_scale = task.row_scales == nullptr ? 1.0f : task.row_scales[m];
    const float* const sums = task.sums + m * task.sums_stride;
    float* const out = task.out + m * task.out_stride;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int64_t n = first_n + i * kThreads;
      if (n >= task.cols || (in_place && row_scale == 1.0f && column_scales[i] == 1.0f)) continue;
      const float sum = sums[n] * row_scale * column_scales[i] + biases[i];
      out[n] = task.accumulate != 0 ? out[n] + sum : sum;
    }
  }
}

}  // namespace

void FinishSums(Tape* tape, const FinishTask& task) {
  const Dim3 grid = {CeilDiv(task.rows, kRows), CeilDiv(task.cols, kThreads * kColumns), 1};
  Launch(tape, FinishKernel, grid, {kThreads, 1, 1}, {0, true}, task);
}

}  // namespace nibble::cuda
