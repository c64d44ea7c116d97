// exp and erfc by the CPU's own polynomials (kernels/cpu/lanes_math.inl) in the same order of fused
// steps: the same bits on every device. Included by .cu files after cuda_machine.h.
#pragma once

#include "cuda_machine.h"

namespace nibble::cuda {

// c[0] + c[1]·x + … by Horner's rule, each step fused.
template <int kCount>
__device__ __forceinline__ float Polynomial(const float (&c)[kCount], float x) {
  float sum = c[kCount - 1];
  for (int i = kCount - 2; i >= 0; --i) sum = fmaf(sum, x, c[i]);
  return sum;
}

// e^x within 2 ulp, subnormal results included; exp(0) is exactly 1, exp(-inf) 0, exp(NaN) NaN.
__device__ __forceinline__ float Exp(float x) {
  constexpr float kP[] = {0.49999994f, 0.166665211f, 0.041668389f, 0.00836874545f, 0.00138145394f};
  constexpr float kRounder = 12582912.0f;  // 1.5 · 2^23: adding it rounds to the nearest integer
  x = 89.0f < x ? 89.0f : x;               // a NaN stays
  x = -105.0f > x ? -105.0f : x;
  const float shifted = fmaf(x, 0x1.715476p+0f, kRounder);
  const float n = shifted - kRounder;
  float r = fmaf(n, -0x1.62e430p-1f, x);
  r = fmaf(n, 0x1.05c610p-29f, r);
  const float e = 1.0f + fmaf(Polynomial(kP, r), r * r, r);
  // 2^n in two factors, because n may leave the range of one exponent.
  const int32_t exponent = static_cast<int32_t>(BitsOf(shifted) - BitsOf(kRounder));
  const int32_t half = exponent >> 1;
  const float first = FloatOf(static_cast<uint32_t>(half + 127) << 23);
  const float second = FloatOf(static_cast<uint32_t>(exponent - half + 127) << 23);
  return e * first * second;
}

// erfc(a/√2) for 0 <= a <= 6.
__device__ __forceinline__ float NormalTails(float a) {
  constexpr float kR[] = {-0.797885299f,    -0.318298876f,    -0.0363875777f,  0.00489599025f,
                          -9.49173045e-05f, -0.000129050197f, 2.72945108e-05f, -1.96500969e-06f};
  return Exp(a * Polynomial(kR, a));
}

}  // namespace nibble::cuda
