// Quantizing rows to 8 bits and back, on the baseline ISA, in loops that the compiler vectorizes.
#include "kernels/int8.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/half.h"

namespace nibble {
namespace {

// Adding and subtracting 1.5 · 2^23 rounds to the nearest integer, ties to even, for |x| < 2^22.
constexpr float kRounder = 12582912.0f;
constexpr float kFp16Overflow = 65520;  // the least magnitude that fp16 rounds to infinity
constexpr float kReciprocal = 1.0f / 127;
static_assert(std::bit_cast<uint32_t>(kReciprocal) == 0x3c010204u);

uint32_t MagnitudeBits(float value) { return std::bit_cast<uint32_t>(value) & 0x7fffffffu; }

// The bits of the largest magnitude; a NaN is larger than anything.
uint32_t LargestMagnitude(std::span<const float> row) {
  int32_t largest = 0;
  for (const float value : row) {
    largest = std::max(largest, static_cast<int32_t>(MagnitudeBits(value)));
  }
  return static_cast<uint32_t>(largest);
}

absl::Status Refuse(std::span<const float> values, size_t row_begin) {
  size_t i = row_begin;
  while (MagnitudeBits(values[i]) < std::bit_cast<uint32_t>(kFp16Overflow)) ++i;
  return absl::InvalidArgumentError(
      absl::StrCat("int8: value ", i, " is ", values[i], ", want a number that fp16 can hold"));
}

// fp16(value) of a value within fp16's range.
inline float RoundToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits & 0x80000000u, magnitude = bits ^ sign;
  const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u)) & ~0x1fffu;
  // Below 2^-14 fp16's ulp is 2^-24, which is that of [0.5, 1) in fp32.
  const float below = std::bit_cast<float>(magnitude) + 0.5f - 0.5f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(below);
  return std::bit_cast<float>(sign | (magnitude < 0x38800000u ? subnormal : normal));
}

void QuantizeRow(std::span<const float> row, float factor, int8_t* codes) {
  for (size_t k = 0; k < row.size(); ++k) {
    const float shifted = RoundToF16(row[k]) * factor + kRounder;
    codes[k] = static_cast<int8_t>(std::bit_cast<uint32_t>(shifted) & 0xffu);
  }
}

// Whole rows inside the matrix; anything else is our own bug.
int64_t NumRows(const Int8Matrix& matrix, int64_t first_row, size_t values) {
  const int64_t rows = static_cast<int64_t>(values) / matrix.k;
  if (rows * matrix.k == static_cast<int64_t>(values) && first_row >= 0 &&
      rows <= matrix.n - first_row) {
    return rows;
  }
  std::fprintf(stderr, "int8: %zu values from row %lld are no rows of a matrix [%lld,%lld]\n",
               values, static_cast<long long>(first_row), static_cast<long long>(matrix.n),
               static_cast<long long>(matrix.k));
  std::abort();
}

}  // namespace

Int8Matrix MakeInt8Matrix(int64_t n, int64_t k) {
  Int8Matrix matrix{n, k, {}, {}};
  matrix.codes.resize(static_cast<size_t>(n * k));
  matrix.absmax.resize(static_cast<size_t>(n));
  return matrix;
}

absl::Status QuantizeInt8(int64_t first_row, std::span<const float> values, Int8Matrix* matrix) {
  const auto k = static_cast<size_t>(matrix->k);
  const auto rows = static_cast<size_t>(NumRows(*matrix, first_row, values.size()));
  for (size_t r = 0; r < rows; ++r) {
    const std::span<const float> row = values.subspan(r * k, k);
    const uint32_t largest = LargestMagnitude(row);
    if (largest >= std::bit_cast<uint32_t>(kFp16Overflow)) return Refuse(values, r * k);
    // Rounding keeps the order, so the largest magnitude is rounded alone.
    const float absmax = F16ToF32(F32ToF16(std::bit_cast<float>(largest)));
    const size_t n = static_cast<size_t>(first_row) + r;
    matrix->absmax[n] = absmax;
    QuantizeRow(row, absmax > 0 ? 127.0f / absmax : 0.0f, matrix->codes.data() + n * k);
  }
  return absl::OkStatus();
}

void DequantizeInt8(const Int8Matrix& matrix, int64_t first_row, std::span<float> values) {
  const auto k = static_cast<size_t>(matrix.k);
  const auto rows = static_cast<size_t>(NumRows(matrix, first_row, values.size()));
  for (size_t r = 0; r < rows; ++r) {
    const size_t n = static_cast<size_t>(first_row) + r;
    const int8_t* codes = matrix.codes.data() + n * k;
    const float absmax = matrix.absmax[n];
    for (size_t i = 0; i < k; ++i) {
      values[r * k + i] = static_cast<float>(codes[i]) * absmax * kReciprocal;
    }
  }
}

}  // namespace nibble
