// One thread takes a few columns of one row, side by side with its neighbours'.
#include "cuda_machine.h"
#include "kernels/cuda/dense_part.h"
#include "kernels/cuda/finish.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 4;  // of a thread

__global__ void __launch_bounds__(kThreads) FinishKernel(FinishTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int64_t m = blockIdx.x;
  const float row_scale = task.row_scales == nullptr ? 1.0f : task.row_scales[m];
  const float* const sums = task.sums + m * task.sums_stride;
  float* const out = task.out + m * task.out_stride;
  const bool in_place = sums == out && task.bias == nullptr;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int64_t n = (static_cast<int64_t>(blockIdx.y) * kColumns + i) * kThreads + threadIdx.x;
    if (n >= task.cols) break;
    const float column_scale = task.column_scales == nullptr ? 1.0f : task.column_scales[n];
    if (in_place && row_scale == 1.0f && column_scale == 1.0f) continue;
    const float sum = sums[n] * row_scale * column_scale + BiasAt(task.bias, task.bias_type, n);
    out[n] = task.accumulate != 0 ? out[n] + sum : sum;
  }
}

}  // namespace

void FinishSums(Tape* tape, const FinishTask& task) {
  const Dim3 grid = {static_cast<uint32_t>(task.rows), CeilDiv(task.cols, kThreads * kColumns), 1};
  Launch(tape, FinishKernel, grid, {kThreads, 1, 1}, {0, true}, task);
}

}  // namespace nibble::cuda
