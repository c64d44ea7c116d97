// Matrices as the arithmetic sees them: out[M,N] = x[M,K] · W[N,K]ᵀ.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace nibble {

// How a matrix is held in device memory.
enum class WeightFormat : uint8_t { kNf4, kFp4, kInt8, kBf16, kF16 };
inline constexpr int kNumWeightFormats = 5;

constexpr const char* Name(WeightFormat format) {
  constexpr const char* kNames[] = {"nf4", "fp4", "int8", "bf16", "fp16"};
  return kNames[static_cast<int>(format)];
}

constexpr bool IsFourBit(WeightFormat format) {
  return format == WeightFormat::kNf4 || format == WeightFormat::kFp4;
}
constexpr bool IsSixteenBit(WeightFormat format) {
  return format == WeightFormat::kBf16 || format == WeightFormat::kF16;
}

// One matrix's shape and form; all that its memory depends on.
struct WeightSpec {
  WeightFormat format = WeightFormat::kNf4;
  int64_t n = 0;  // output features (rows of the checkpoint's matrix)
  int64_t k = 0;  // input features
  // 4 bits only.
  int32_t group_size = 64;   // values that share a scale, over the flattened matrix
  bool double_quant = true;  // scales held as 8-bit codes, groups of 256
  bool own_tables = false;   // a codebook or nested map of its own, held with the matrix
  // INT8 only: an input element of at least this magnitude is multiplied in 16 bits; 0: none is.
  float outlier_threshold = 6.0f;
};

// Bytes of each part of a matrix in device memory, as Backend::PackedSize tells them.
// Parts lie in separate arrays so that none is padded: codes aligned to 64, scales to 16, the rest
// to 4.
struct PackedSize {
  int64_t codes = 0;   // 4-bit or 8-bit codes, or all the 16-bit values
  int64_t scales = 0;  // fp32 absmax (INT8: one per row), or 8-bit absmax codes
  int64_t nested = 0;  // fp32 nested absmax, then the fp32 offset
  int64_t tables =
      0;  // own tables: fp32 codebook [16], then with double quantization the map [256]
  int64_t Total() const { return codes + scales + nested + tables; }
};

// A matrix in device memory, in the backend's own packed layout. Does not own; the model's arena
// does.
struct Weight {
  WeightSpec spec;
  void* codes = nullptr;
  void* scales = nullptr;
  void* nested = nullptr;
  void* tables = nullptr;
};

}  // namespace nibble
