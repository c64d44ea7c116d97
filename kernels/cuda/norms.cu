// RMSNorm and LayerNorm: a warp for a narrow row, a block for a wide one; every thread keeps to its
// own values of the row, so `out` may be `x`.
#include "cuda_machine.h"
#include "kernels/cuda/row_access.h"
#include "kernels/cuda/row_ops.h"

namespace nibble::cuda {
namespace {

constexpr uint32_t kSharedBytes = 2 * kWarp * sizeof(float);

__device__ __forceinline__ int64_t RowOfThread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}
// A thread's values: four from FirstColumn() on, then every Step().
__device__ __forceinline__ int64_t FirstColumn() { return kFour * threadIdx.x; }
__device__ __forceinline__ int64_t Step() { return kFour * blockDim.x; }

__global__ void __launch_bounds__(1024)
    RmsNormKernel(DeviceRows x, DeviceVector weight, DeviceRows out, int64_t rows, int64_t cols,
                  float eps) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int64_t row = RowOfThread();
  const int64_t end = row < rows ? cols : 0;  // rows beyond the last only meet at the barriers
  const float* from = x.Row(row);
  float sum = 0;
  for (int64_t c = FirstColumn(); c < end; c += Step()) {
    const Four v = LoadFour(from, c, cols, x.aligned != 0);
    for (int i = 0; i < 4; ++i) sum = fmaf(v.v[i], v.v[i], sum);
  }
  const float mean =
      RowSum(sum, reinterpret_cast<float*>(DynamicShared())) / static_cast<float>(cols);
  const float inverse = 1.0f / sqrtf(mean + eps);
  for (int64_t c = FirstColumn(); c < end; c += Step()) {
    Four v = LoadFour(from, c, cols, x.aligned != 0);
    const Four w = LoadFour(weight, c, cols);
    for (int i = 0; i < 4; ++i) v.v[i] = v.v[i] * inverse * w.v[i];
    StoreFour(out.Row(row), c, cols, out.aligned != 0, v);
  }
}

// x + residual, or x.
__device__ __forceinline__ Four LoadSum(const DeviceRows& x, const DeviceRows& residual,
                                        int64_t row, int64_t c, int64_t cols) {
  Four v = LoadFour(x.Row(row), c, cols, x.aligned != 0);
  if (residual.data == nullptr) return v;
  const Four r = LoadFour(residual.Row(row), c, cols, residual.aligned != 0);
  for (int i = 0; i < 4; ++i) v.v[i] += r.v[i];
  return v;
}

struct LayerNormParams {
  DeviceRows x;
  DeviceRows residual;
  DeviceVector weight;
  DeviceVector bias;
  DeviceRows out;
};

// The mean first, then the squares of the distances to it.
__global__ void __launch_bounds__(1024)
    LayerNormKernel(LayerNormParams p, int64_t rows, int64_t cols, float eps) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  float* const shared = reinterpret_cast<float*>(DynamicShared());
  const int64_t row = RowOfThread();
  const int64_t end = row < rows ? cols : 0;
  float sum = 0;
  for (int64_t c = FirstColumn(); c < end; c += Step()) {
    const Four v = LoadSum(p.x, p.residual, row, c, cols);
    for (int i = 0; i < 4; ++i) sum += v.v[i];
  }
  const float mean = RowSum(sum, shared) / static_cast<float>(cols);
  float squares = 0;
  for (int64_t c = FirstColumn(); c < end; c += Step()) {
    const Four v = LoadSum(p.x, p.residual, row, c, cols);
    for (int i = 0; i < 4; ++i) {
      const float distance = c + i < cols ? v.v[i] - mean : 0.0f;
      squares = fmaf(distance, distance, squares);
    }
  }
  const float variance = RowSum(squares, shared + kWarp) / static_cast<float>(cols);
  const float inverse = 1.0f / sqrtf(variance + eps);
  for (int64_t c = FirstColumn(); c < end; c += Step()) {
    Four v = LoadSum(p.x, p.residual, row, c, cols);
    const Four w = LoadFour(p.weight, c, cols);
    Four b = {{0, 0, 0, 0}};
    if (p.bias.data != nullptr) b = LoadFour(p.bias, c, cols);
    for (int i = 0; i < 4; ++i) v.v[i] = fmaf((v.v[i] - mean) * inverse, w.v[i], b.v[i]);
    StoreFour(p.out.Row(row), c, cols, p.out.aligned != 0, v);
  }
}

}  // namespace

void RmsNorm(Tape* tape, const Activations& x, const VectorView& weight, float eps,
             const Activations& out) {
  const RowBlock block = RowBlockFor(x.cols);
  Launch(tape, &RmsNormKernel, {CeilDiv(x.rows, block.rows)}, {block.threads, block.rows},
         {kSharedBytes, true}, RowsOf(x), VectorOf(weight), RowsOf(out), x.rows, x.cols, eps);
}

void LayerNorm(Tape* tape, const Activations& x, const Activations& residual,
               const VectorView& weight, const VectorView& bias, float eps,
               const Activations& out) {
  const RowBlock block = RowBlockFor(x.cols);
  const LayerNormParams params = {RowsOf(x), RowsOf(residual), VectorOf(weight), VectorOf(bias),
                                  RowsOf(out)};
  Launch(tape, &LayerNormKernel, {CeilDiv(x.rows, block.rows)}, {block.threads, block.rows},
         {kSharedBytes, true}, params, x.rows, x.cols, eps);
}

}  // namespace nibble::cuda
