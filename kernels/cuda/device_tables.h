// The formats' tables in device memory, made once by the backend. Plain, so that .cu files take it.
#pragma once

namespace nibble::cuda {

struct DeviceTables {
  const float* nf4 = nullptr;          // [16]
  const float* fp4 = nullptr;          // [16]
  const float* dynamic_map = nullptr;  // [256]
};

}  // namespace nibble::cuda
