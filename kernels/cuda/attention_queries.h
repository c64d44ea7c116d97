// 16 query rows of a warp as 16-bit A fragments, scaled by powers of two.
#pragma once

#include "kernels/cuda/attention_layout.h"

namespace nibble::cuda {

// The 16-bit types: pairs and products.
struct HalfPairs {
  static constexpr uint32_t kOnes = 0x3c003c00;
  static __device__ __forceinline__ uint32_t Pack(float a, float b) { return PackHalf(a, b); }
  static __device__ __forceinline__ void Mma(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
    MmaHalf(d, a, b);
  }
};
struct Bf16Pairs {
  static constexpr uint32_t kOnes = 0x3f803f80;
  static __device__ __forceinline__ uint32_t Pack(float a, float b) { return PackBf16(a, b); }
  static __device__ __forceinline__ void Mma(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
    MmaBf16(d, a, b);
  }
};

// 2^e with 1 <= x / 2^e < 2, as a float's exponent bits; kept where both powers are normal.
__device__ __forceinline__ uint32_t ExponentBits(float x) {
  const uint32_t bits = BitsOf(x) >> 23 & 0xff;
  return bits < 27 ? 27u : bits > 227 ? 227u : bits;
}
__device__ __forceinline__ float PowerOf(uint32_t exponent_bits) {
  return FloatOf(exponent_bits << 23);
}
__device__ __forceinline__ float OneOver(uint32_t exponent_bits) {
  return FloatOf((254 - exponent_bits) << 23);
}

// The lane's rows as A fragments, each row divided by a power of two that `scale` gives back, so
// that fp16 neither overflows nor loses small rows. kStaged: they wait in shared memory (16 bytes a
// lane and 16 d), where registers would not be enough.
template <typename Pairs, int kBucket, bool kStaged = false>
struct Queries {
  static constexpr int kSteps = kBucket / 16;
  static constexpr uint32_t kStagedBytes = kStaged ? kSteps * kWarpLanes * 16 : 0;  // of a warp

  float scale[2];
  uint4* staged;  // the lane's
  uint32_t a[kStaged ? 1 : kSteps][4];

  // rows: null for a row that does not exist; it becomes zeros, as do steps past head_dim. shared:
  // the warp's, if kStaged.
  __device__ void Load(const float* const (&rows)[2], int head_dim, char* shared) {
    staged = reinterpret_cast<uint4*>(shared) + threadIdx.x % kWarpLanes;
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t exponent = ExponentBits(Largest(rows[h], head_dim));
      scale[h] = PowerOf(exponent);
      inverse[h] = OneOver(exponent);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t to[4];
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const float* row = rows[part % 2];
        const int d = 16 * step + 8 * (part / 2) + static_cast<int>(threadIdx.x) % 4 * 2;
        to[part] = 0;
        if (row != nullptr && d < head_dim) {
          to[part] = Pairs::Pack(row[d] * inverse[part % 2], row[d + 1] * inverse[part % 2]);
        }
      }
      if (kStaged) {
        staged[step * kWarpLanes] = {to[0], to[1], to[2], to[3]};
      } else {
        for (int part = 0; part < 4; ++part) a[step][part] = to[part];
      }
    }
  }
  __device__ __forceinline__ void Fragment(int step, uint32_t (&to)[4]) const {
    if (kStaged) {
      const uint4 q = staged[step * kWarpLanes];
      to[0] = q.x, to[1] = q.y, to[2] = q.z, to[3] = q.w;
    } else {
      for (int part = 0; part < 4; ++part) to[part] = a[step][part];
    }
  }

 private:
  // Of a row that four lanes share.
  static __device__ float Largest(const float* row, int head_dim) {
    float largest = 0;
    const int t = static_cast<int>(threadIdx.x) % 4;
    for (int d = 4 * t; row != nullptr && d < head_dim; d += 16) {
      for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(row[d + i]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    return fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  }
};

}  // namespace nibble::cuda
