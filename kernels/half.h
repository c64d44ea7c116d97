// The two 16-bit float types, fp16 (IEEE binary16) and bf16, to and from fp32, one value at a time,
// on any machine. Knows bits, and nothing of tensors' shapes.
//
// Widening is exact. Narrowing rounds to nearest, ties to even; overflow gives infinity, subnormals
// are kept. A NaN stays a NaN with its sign and the upper payload bits, made quiet, as the x86
// conversion instructions do. Branch-free enough for the compiler to vectorize loops over them.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/tensor.h"

namespace nibble {

constexpr float F16ToF32(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23);  // exponent bias 15 becomes 127
  const uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0u;
  const uint32_t special = (normal + (112u << 23)) | quiet;
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t bits = magnitude < 0x400u ? subnormal : (magnitude < 0x7c00u ? normal : special);
  return std::bit_cast<float>(sign | bits);
}

constexpr uint16_t F32ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t odd = (magnitude >> 13) & 1u;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
  // Below 2^-14 the result counts units of 2^-24, which are the ulps of [0.5, 1): the addition
  // rounds.
  const float below = magnitude < 0x38800000u ? std::bit_cast<float>(magnitude) : 0.0f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(below + 0.5f) - 0x3f000000u;
  const uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  const uint32_t special = magnitude > 0x7f800000u ? nan : 0x7c00u;
  const uint32_t half =
      magnitude < 0x38800000u ? subnormal : (magnitude < 0x47800000u ? normal : special);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | half);
}

constexpr float Bf16ToF32(uint16_t half) {
  return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

constexpr uint16_t F32ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// By type; dtype is kF16 or kBF16.
constexpr float HalfToF32(DType dtype, uint16_t half) {
  return dtype == DType::kF16 ? F16ToF32(half) : Bf16ToF32(half);
}
constexpr uint16_t F32ToHalf(DType dtype, float value) {
  return dtype == DType::kF16 ? F32ToF16(value) : F32ToBf16(value);
}

}  // namespace nibble
