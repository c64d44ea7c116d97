// Packed 4-bit matrices to plain values, as bitsandbytes dequantizes them.
#pragma once

#include <cstdint>

#include "kernels/cuda/four_bit_layout.h"
#include "kernels/cuda/launch.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// out[i·stride + k] = codebook[code] · absmax of row first + i, i < count: one fp32 product,
// rounded once more to a 16-bit type. Doubly quantized scales take two roundings, multiply and add.
// Groups may straddle rows. Bytes written: count · K · SizeOf(type); nothing between rows.
// row_scales: null, or [count] powers of two that the rows are divided by before they are rounded
// to 16 bits (four_bit_row_scales.h).
void UnpackFourBit(Tape* tape, const FourBitView& weight, int64_t first, int64_t count, DType type,
                   void* out, int64_t stride, const float* row_scales = nullptr);

}  // namespace nibble::cuda
