#include "tests/support/cuda_emulator/fake_gemm.h"

#include <vector>

#include "kernels/half.h"

namespace nibble::cuda::fake {
namespace {

void MultiplyInt8(const GemmCall& call) {
  const auto* const x = static_cast<const int8_t*>(call.x);
  const auto* const w = static_cast<const int8_t*>(call.w);
  auto* const out = static_cast<int32_t*>(call.out);
  for (int64_t m = 0; m < call.m; ++m) {
    for (int64_t n = 0; n < call.n; ++n) {
      int32_t sum = 0;
      for (int64_t k = 0; k < call.k; ++k) {
        sum += x[m * call.x_stride + k] * w[n * call.w_stride + k];
      }
      int32_t& place = out[m * call.out_stride + n];
      place = call.accumulate ? place + sum : sum;
    }
  }
}

// Rows of 16- or 32-bit values as floats, close together.
std::vector<float> Widen(GemmCall::Type type, const void* values, int64_t rows, int64_t columns,
                         int64_t stride) {
  std::vector<float> wide(static_cast<size_t>(rows * columns));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t at = row * stride + column;
      float& value = wide[static_cast<size_t>(row * columns + column)];
      if (type == GemmCall::Type::kFloat) {
        value = static_cast<const float*>(values)[at];
      } else {
        const uint16_t half = static_cast<const uint16_t*>(values)[at];
        value = type == GemmCall::Type::kHalf ? F16ToF32(half) : Bf16ToF32(half);
      }
    }
  }
  return wide;
}

}  // namespace

void Multiply(const GemmCall& call) {
  if (call.type == GemmCall::Type::kInt8) {
    MultiplyInt8(call);
    return;
  }
  const std::vector<float> x = Widen(call.type, call.x, call.m, call.k, call.x_stride);
  const std::vector<float> w = Widen(call.type, call.w, call.n, call.k, call.w_stride);
  auto* const out = static_cast<float*>(call.out);
  for (int64_t m = 0; m < call.m; ++m) {
    for (int64_t n = 0; n < call.n; ++n) {
      // Four sums, or the loop would wait for each addition.
      double sums[4] = {};
      for (int64_t k = 0; k < call.k; ++k) {
        sums[k % 4] += static_cast<double>(x[static_cast<size_t>(m * call.k + k)]) *
                       static_cast<double>(w[static_cast<size_t>(n * call.k + k)]);
      }
      const double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      float& place = out[m * call.out_stride + n];
      place = static_cast<float>(call.accumulate ? static_cast<double>(place) + sum : sum);
    }
  }
}

}  // namespace nibble::cuda::fake
