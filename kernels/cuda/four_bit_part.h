// One product of a grouped 4-bit matmul as kernels take it, and the scratch memory with which
// blocks that split K add up. Plain data without padding.
#pragma once

#include <cstdint>

#include "kernels/cuda/four_bit_layout.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// out[m,n] = sum + bias[n], or old + (sum + bias[n]).
struct FourBitPart {
  FourBitView weight;
  float* out;
  int64_t out_stride;
  const void* bias;    // [n] of bias_type, or null
  int32_t bias_type;   // DType
  int32_t accumulate;  // 1: out += …
};

// Products of the same x: all have one K, one group size and scales of one form.
inline constexpr int kMaxFourBitParts = 4;
struct FourBitParts {
  FourBitPart parts[kMaxFourBitParts];
  int64_t num_parts;
};

// Scratch memory of a split sum := uint32[kSplitCounters], then fp32 partial sums. The counters are
// zero before the first launch and again after each; launches of one stream may share the memory.
inline constexpr int64_t kSplitCounters = 16384;
inline constexpr int64_t kSplitBytes = kSplitCounters * 4 + (int64_t{16} << 20);

}  // namespace nibble::cuda
