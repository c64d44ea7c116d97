// One number of any type in memory, read as double or stored by one rounding.
#pragma once

#include <cstdint>

#include "kernels/half.h"
#include "kernels/tensor.h"

namespace nibble::reference {

inline double Load(const void* data, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return static_cast<double>(static_cast<const float*>(data)[i]);
  return static_cast<double>(HalfToF32(dtype, static_cast<const uint16_t*>(data)[i]));
}

inline double Load(const VectorView& vector, int64_t i) {
  return Load(vector.data, vector.dtype, i);
}

inline void Store(void* data, DType dtype, int64_t i, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[i] = value;
  } else {
    static_cast<uint16_t*>(data)[i] = F32ToHalf(dtype, value);
  }
}

}  // namespace nibble::reference
