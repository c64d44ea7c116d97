// The values of bitsandbytes' matrices, straight from the mapped file. Bit-equal to
// DequantizeFourBit and DequantizeInt8 on the matrix's copy, without the copy.
#pragma once

#include <cstdint>
#include <span>

#include "engine/loader/checkpoint.h"

namespace nibble {

// Rows from `first` on, as many as out holds. The matrix is not permuted: only GGUF's are.
void DequantizeRows(const TensorRef& tensor, int64_t first, std::span<float> out);

}  // namespace nibble
