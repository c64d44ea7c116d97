// What the kernels of INT8 and 16-bit weights share on the device: which part a block works on, and
// what becomes of a finished sum.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/dense_layout.h"

namespace nibble::cuda {

// The part that block `block` of all parts' blocks belongs to, and the first of its rows; each
// block takes rows_per_block rows of one part.
struct PartPlace {
  int part;
  int64_t first_n;
};
__device__ __forceinline__ PartPlace FindPart(const DenseParts& parts, int64_t block,
                                              int rows_per_block) {
  int part = 0;
  for (;; ++part) {
    const int64_t blocks = (parts.parts[part].n + rows_per_block - 1) / rows_per_block;
    if (block < blocks) break;
    block -= blocks;
  }
  return {part, block * rows_per_block};
}

// Value n of a bias of this DType, 0 where there is none.
__device__ __forceinline__ float BiasAt(const void* bias, int32_t type, int64_t n) {
  if (bias == nullptr) return 0.0f;
  if (type == static_cast<int32_t>(DType::kF32)) return static_cast<const float*>(bias)[n];
  const uint16_t bits = static_cast<const uint16_t*>(bias)[n];
  return type == static_cast<int32_t>(DType::kF16) ? HalfToFloat(bits) : Bf16ToFloat(bits);
}
__device__ __forceinline__ float BiasAt(const DensePart& part, int64_t n) {
  return BiasAt(part.bias, part.bias_type, n);
}

__device__ __forceinline__ float AddBias(const DensePart& part, int64_t n, float sum) {
  return part.bias == nullptr ? sum : sum + BiasAt(part, n);
}

// out[m,n] (+)= sum.
__device__ __forceinline__ void StoreSum(const DensePart& part, int64_t m, int64_t n, float sum) {
  float* const out = part.out + m * part.out_stride + n;
  *out = part.accumulate != 0 ? *out + sum : sum;
}

}  // namespace nibble::cuda
