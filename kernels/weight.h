// Matrices as the arithmetic sees them: out[M,N] = x[M,K] · W[N,K]ᵀ.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace nibble {

// How a matrix is held in device memory. FP4 and INT8 have their own issue.
enum class WeightFormat : uint8_t { kNf4, kBf16, kF16 };

constexpr const char* Name(WeightFormat format) {
  return format == WeightFormat::kNf4 ? "nf4" : format == WeightFormat::kBf16 ? "bf16" : "fp16";
}

// One matrix's shape and form; all that its memory depends on.
struct WeightSpec {
  WeightFormat format = WeightFormat::kNf4;
  int64_t n = 0;             // output features (rows of the checkpoint's matrix)
  int64_t k = 0;             // input features
  int32_t group_size = 64;   // values that share a scale, over the flattened matrix; NF4 only
  bool double_quant = true;  // scales held as 8-bit codes, groups of 256; NF4 only
};

// Bytes of each part of a matrix in device memory, as Backend::PackedSize tells them.
// Parts lie in separate arrays so that none is padded: codes aligned to 64, scales to 16, nested
// to 4.
struct PackedSize {
  int64_t codes = 0;   // NF4 codes, or all the 16-bit values
  int64_t scales = 0;  // fp32 absmax, or 8-bit absmax codes
  int64_t nested = 0;  // fp32 nested absmax, then the fp32 offset
  int64_t Total() const { return codes + scales + nested; }
};

// A matrix in device memory, in the backend's own packed layout. Does not own; the model's arena
// does.
struct Weight {
  WeightSpec spec;
  void* codes = nullptr;
  void* scales = nullptr;
  void* nested = nullptr;
};

}  // namespace nibble
