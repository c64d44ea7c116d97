// exp and erf by the CPU's own polynomials (kernels/cpu/lanes_math.inl) in the same order of fused
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

// erf(x) within 2^-23 absolute.
__device__ __forceinline__ float Erf(float x) {
  constexpr float kP[] = {0.128379166f,   -0.37612626f,     0.112836003f,   -0.0268544443f,
                          0.00518953567f, -0.000802084222f, 7.88912294e-05f};
  constexpr float kQ[] = {0.000188037055f, -1.12957835f,    -0.633219898f,   -0.108418554f,
                          0.0252082404f,   -0.00420455635f, 0.000441335287f, -2.16867629e-05f};
  const uint32_t sign = BitsOf(x) & 0x80000000u;
  const float absolute = FloatOf(BitsOf(x) ^ sign);
  const float magnitude = 4.0f < absolute ? 4.0f : absolute;
  if (magnitude < 1.0f) return fmaf(x, Polynomial(kP, x * x), x);
  return FloatOf(BitsOf(1.0f - Exp(Polynomial(kQ, magnitude))) ^ sign);
}

}  // namespace nibble::cuda
