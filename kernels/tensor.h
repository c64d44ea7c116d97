// Views of device memory: a type, a shape, no ownership. Row-major; the last dimension is
// contiguous.
#pragma once

#include <cstdint>

namespace nibble {

enum class DType : uint8_t { kF32, kF16, kBF16 };

constexpr int64_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }
constexpr const char* Name(DType dtype) {
  return dtype == DType::kF32 ? "fp32" : dtype == DType::kF16 ? "fp16" : "bf16";
}

// [length] values of one type: a norm's weight, a bias. Null data means "absent".
struct VectorView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t length = 0;
  explicit operator bool() const { return data != nullptr; }
};

// [rows, cols] activations. Row r begins at data + r * stride elements.
struct Activations {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* Row(int64_t r) const { return data + r * stride; }
  // Rows [first, first + count) of the same memory.
  Activations Rows(int64_t first, int64_t count) const { return {Row(first), count, cols, stride}; }
  // Columns [first, first + count) of the same memory.
  Activations Cols(int64_t first, int64_t count) const {
    return {data + first, rows, count, stride};
  }
};

}  // namespace nibble
