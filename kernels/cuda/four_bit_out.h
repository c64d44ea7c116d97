// What becomes of a finished sum of a 4-bit product. Device code.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/four_bit_part.h"

namespace nibble::cuda {

// 0 where there is none.
__device__ __forceinline__ float BiasOf(const FourBitPart& part, int64_t n) {
  if (part.bias == nullptr) return 0;
  if (part.bias_type == static_cast<int32_t>(DType::kF32)) {
    return static_cast<const float*>(part.bias)[n];
  }
  const uint16_t bits = static_cast<const uint16_t*>(part.bias)[n];
  return part.bias_type == static_cast<int32_t>(DType::kF16) ? HalfToFloat(bits)
                                                             : Bf16ToFloat(bits);
}

// out[m,n] (+)= sum + bias, BiasOf(part, n); -0 + 0 stays as it is without a bias.
__device__ __forceinline__ void StoreSum(const FourBitPart& part, int64_t m, int64_t n, float sum,
                                         float bias) {
  if (part.bias != nullptr) sum += bias;
  float* const out = part.out + m * part.out_stride + n;
  *out = part.accumulate != 0 ? *out + sum : sum;
}

}  // namespace nibble::cuda
