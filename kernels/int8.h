// THE 8-bit format: bitsandbytes' LLM.int8() weights, one scale per row. Knows nothing of files,
// models or devices' packed layouts.
//
//   codes  := int8[N][K], row-major; code = rint_even(fp16(w) · (127 / absmax)), bitsandbytes' CB
//   absmax := fp32[N], the largest |fp16(w)| of each row, bitsandbytes' SCB
//   w      =  code · absmax / 127
//
// Source: bitsandbytes (int8_vectorwise_quant), LLM.int8() (Dettmers et al. 2022).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace nibble {

// One matrix in the checkpoint's own order.
struct Int8Matrix {
  int64_t n = 0;  // N: rows
  int64_t k = 0;  // K: columns
  std::vector<int8_t> codes;
  std::vector<float> absmax;
};

// A matrix whose arrays have their sizes and hold zeros. n, k > 0.
Int8Matrix MakeInt8Matrix(int64_t n, int64_t k);

// Quantizes rows [first_row, first_row + values.size() / K). Safe to call from several threads at
// once for different rows. Errors: INVALID_ARGUMENT naming the flat index, counted from
// values[0], of a NaN, an Inf or a value that fp16 cannot hold.
absl::Status QuantizeInt8(int64_t first_row, std::span<const float> values, Int8Matrix* matrix);

// The fp32 values of rows [first_row, first_row + values.size() / K): code · (absmax / 127), each
// step rounded to fp32.
void DequantizeInt8(const Int8Matrix& matrix, int64_t first_row, std::span<float> values);

}  // namespace nibble
