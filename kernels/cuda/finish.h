// What is left to do when cuBLAS has left sums: scales, bias, the old value.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// out[m,n] (+)= sums[m,n] · row_scales[m] · column_scales[n] + bias[n]. sums: [rows, cols] of out,
// and may be out itself when not accumulating; where there is then nothing to do, nothing is read.
struct FinishTask {
  const float* sums;
  int64_t sums_stride;
  float* out;
  int64_t out_stride;
  int64_t rows;
  int64_t cols;
  const float* row_scales;     // or null: 1
  const float* column_scales;  // or null: 1
  const void* bias;            // [cols] of bias_type, or null: 0
  int32_t bias_type;           // DType
  int32_t accumulate;          // 1: out += …
};
void FinishSums(Tape* tape, const FinishTask& task);

}  // namespace nibble::cuda
