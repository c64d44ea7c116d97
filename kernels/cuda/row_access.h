// How kernels read and write rows: four neighbouring values at a time, in one access where the
// rows' alignment allows it. Which thread takes which values depends on the width alone, so the
// alignment changes no result. Included by .cu files after cuda_machine.h.
#pragma once

#include "cuda_machine.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

inline constexpr uint32_t kWarp = 32;
inline constexpr int64_t kFour = 4;

// Rows as kernels take them.
struct DeviceRows {
  float* data;
  int64_t stride;
  int64_t aligned;  // 1: every row begins at a multiple of 16 bytes

  __device__ __forceinline__ float* Row(int64_t r) const { return data + r * stride; }
};

// A vector of any type as kernels take it; null: absent.
struct DeviceVector {
  const void* data;
  int32_t dtype;    // DType
  int32_t aligned;  // 1: four values from a multiple of four on are one access
};

struct Four {
  float v[4];
};

inline bool IsAligned(const void* data, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) == 0;
}
inline DeviceRows RowsOf(const Activations& x) {
  const bool aligned = IsAligned(x.data, 16) && (x.stride % kFour == 0 || x.rows <= 1);
  return {x.data, x.stride, aligned ? 1 : 0};
}
inline DeviceVector VectorOf(const VectorView& vector) {
  const bool aligned = IsAligned(vector.data, kFour * SizeOf(vector.dtype));
  return {vector.data, static_cast<int32_t>(vector.dtype), aligned ? 1 : 0};
}

// Values [c, c + 4) of a row of `cols`; zeros beyond it.
__device__ __forceinline__ Four LoadFour(const float* row, int64_t c, int64_t cols, bool aligned) {
  Four four;
  if (aligned && c + kFour <= cols) {
    const float4 v = *reinterpret_cast<const float4*>(row + c);
    four.v[0] = v.x;
    four.v[1] = v.y;
    four.v[2] = v.z;
    four.v[3] = v.w;
    return four;
  }
  for (int i = 0; i < 4; ++i) four.v[i] = c + i < cols ? row[c + i] : 0.0f;
  return four;
}

__device__ __forceinline__ void StoreFour(float* row, int64_t c, int64_t cols, bool aligned,
                                          const Four& four) {
  if (aligned && c + kFour <= cols) {
    *reinterpret_cast<float4*>(row + c) = make_float4(four.v[0], four.v[1], four.v[2], four.v[3]);
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (c + i < cols) row[c + i] = four.v[i];
  }
}

__device__ __forceinline__ float FromHalf(uint32_t half, int32_t dtype) {
  const uint16_t bits = static_cast<uint16_t>(half & 0xffffu);
  return dtype == static_cast<int32_t>(DType::kF16) ? HalfToFloat(bits) : Bf16ToFloat(bits);
}

// The same of 16-bit values.
__device__ __forceinline__ Four LoadFourHalves(const uint16_t* row, int64_t c, int64_t cols,
                                               bool aligned, int32_t dtype) {
  Four four;
  if (aligned && c + kFour <= cols) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(row + c);
    four.v[0] = FromHalf(pairs.x, dtype);
    four.v[1] = FromHalf(pairs.x >> 16, dtype);
    four.v[2] = FromHalf(pairs.y, dtype);
    four.v[3] = FromHalf(pairs.y >> 16, dtype);
    return four;
  }
  for (int i = 0; i < 4; ++i) four.v[i] = c + i < cols ? FromHalf(row[c + i], dtype) : 0.0f;
  return four;
}

__device__ __forceinline__ Four LoadFour(const DeviceVector& vector, int64_t c, int64_t cols) {
  if (vector.dtype == static_cast<int32_t>(DType::kF32)) {
    return LoadFour(static_cast<const float*>(vector.data), c, cols, vector.aligned != 0);
  }
  return LoadFourHalves(static_cast<const uint16_t*>(vector.data), c, cols, vector.aligned != 0,
                        vector.dtype);
}

// The sum over a warp, the same in every lane: halves folded until one lane is left.
__device__ __forceinline__ float WarpSum(float value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
  return value;
}

// The sum over the blockDim.x threads of a row, the same in all of them; warps are added by the
// same folding. `warps` is shared memory of 32 floats that nothing else uses; a block of several
// rows has one warp for each and needs none.
__device__ __forceinline__ float RowSum(float value, float* warps) {
  value = WarpSum(value);
  if (blockDim.x == kWarp) return value;
  const uint32_t lane = threadIdx.x % kWarp;
  if (lane == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  return WarpSum(lane < blockDim.x / kWarp ? warps[lane] : 0.0f);
}

// Threads and rows of a block that sums rows of this width.
struct RowBlock {
  uint32_t threads;
  uint32_t rows;
};
inline RowBlock RowBlockFor(int64_t cols) {
  if (cols <= 512) return {kWarp, 4};
  if (cols <= 2048) return {128, 1};
  if (cols <= 4096) return {256, 1};
  return {cols <= 8192 ? 512u : 1024u, 1};
}

}  // namespace nibble::cuda
