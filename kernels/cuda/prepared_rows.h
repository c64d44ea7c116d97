// Rows of x as the tensor cores take them: fp16 with one power of two per row, so that bf16 values
// become fp16 exactly unless they are tiny beside their row's largest.
#pragma once

#include <cstdint>

namespace nibble::cuda {

// values[m·stride + i] = fp16(x[m,i] / scales[m]), zeros for k <= i < stride; scales[m] is a power
// of two. stride: a multiple of 64, at least k. values aligned to 16. Plain data without padding.
struct PreparedRows {
  const uint16_t* values;
  const float* scales;
  int64_t rows;
  int64_t k;
  int64_t stride;
};

constexpr int64_t PreparedStride(int64_t k) { return (k + 63) / 64 * 64; }

}  // namespace nibble::cuda
