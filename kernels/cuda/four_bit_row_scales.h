// The power of two that each row of a 4-bit matrix is divided by before its values become fp16, so
// that no scale in the checkpoint is too large or too small for that.
#pragma once

#include <cstdint>

#include "kernels/cuda/four_bit_layout.h"
#include "kernels/cuda/launch.h"

namespace nibble::cuda {

// scales[i] of row first + i, i < count: 1 where the largest finite magnitude that the row's groups
// can hold lies in [2^-8, 2^15), or where it is 0; else such that it comes to lie in [2^14, 2^15),
// as far as fp32 has the power.
void FourBitRowScales(Tape* tape, const FourBitView& weight, int64_t first, int64_t count,
                      float* scales);

}  // namespace nibble::cuda
