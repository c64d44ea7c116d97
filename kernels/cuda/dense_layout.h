// How INT8 and 16-bit matrices lie in device memory, and one of them as kernels take it.
//
//   INT8     codes  := row[N]    row := int8[Int8Stride(K)], the checkpoint's row, zeros past K
//            scales := fp32[N]   absmax of each row
//   16 bits  codes  := row[N]    row := uint16[K], in the matrix's own type
//
// So INT8 takes N·K + 4·N bytes where K is a multiple of 16, and up to 15·N more where it is not:
// rows are then read 16 bytes at a time, and cuBLAS takes them.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"
#include "kernels/weight.h"

namespace nibble::cuda {

constexpr int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr int64_t Int8Stride(int64_t k) { return RoundUp(k, 16); }

// For INT8 and 16-bit specs.
constexpr PackedSize DensePackedBytes(const WeightSpec& spec) {
  if (spec.format == WeightFormat::kInt8) return {spec.n * Int8Stride(spec.k), 4 * spec.n, 0, 0};
  return {2 * spec.n * spec.k, 0, 0, 0};
}

// One product of a grouped matmul. Kernels take up to kMaxParts of them, all of one format and
// width. Plain data without padding.
inline constexpr int kMaxParts = 4;
struct DensePart {
  const void* codes;
  const float* absmax;  // INT8
  const void* bias;     // [n] of bias_type, or null
  float* out;
  int64_t out_stride;
  int64_t n;
  int32_t bias_type;   // DType
  int32_t accumulate;  // 1: out += …
};

struct DenseParts {
  DensePart parts[kMaxParts];
  int64_t num_parts;
};

}  // namespace nibble::cuda
