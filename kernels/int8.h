// THE 8-bit format: bitsandbytes' LLM.int8() weights, one scale per row. Knows nothing of files,
// models or devices' packed layouts.
//
//   codes  := int8[N][K], row-major, bitsandbytes' CB;
//             code = rint_even(fp16(w) · (127 / absmax)), 0 in a row of zeros
//   absmax := fp32[N], the largest |fp16(w)| of each row, bitsandbytes' SCB
//   w       = (code · absmax) · fp32(1/127), each step rounded to fp32
//
// Source: bitsandbytes (int8_vectorwise_quant and _dequant on the CPU, bit for bit), LLM.int8()
// (Dettmers et al. 2022).
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace nibble {

// The most columns whose products with any codes, -128 included, sum up in 32 bits.
inline constexpr int64_t kMaxInt8Columns = std::numeric_limits<int32_t>::max() / (127 * 128);

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

// The fp32 values of rows [first_row, first_row + values.size() / K).
void DequantizeInt8(const Int8Matrix& matrix, int64_t first_row, std::span<float> values);

}  // namespace nibble
