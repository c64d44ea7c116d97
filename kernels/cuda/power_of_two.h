// Powers of two that bring a row's values into fp16's range. Device code.
#pragma once

#include "cuda_machine.h"

namespace nibble::cuda {

inline constexpr uint32_t kInfinityBits = 0x7f800000;

// The e for which values · 2^-e suit fp16, for a row whose largest finite magnitude has these bits:
// 0 where the largest lies in [2^lowest, 2^15) or is 0; else such that it comes to lie in
// [2^14, 2^15), as far as both powers are normal numbers.
__device__ __forceinline__ int ExponentFor(uint32_t largest, int lowest) {
  const int exponent = static_cast<int>(largest >> 23) - 127;
  if (largest == 0 || (exponent >= lowest && exponent <= 14)) return 0;
  return exponent - 14 < -126 ? -126 : exponent - 14;
}

// -126 <= e <= 126.
__device__ __forceinline__ float PowerOfTwo(int e) {
  return FloatOf(static_cast<uint32_t>(127 + e) << 23);
}

// 1 / power, for what PowerOfTwo gave.
__device__ __forceinline__ float InverseOfPower(float power) {
  return FloatOf(0x7f000000u - BitsOf(power));
}

}  // namespace nibble::cuda
