// The oracle's packed layout, which is no layout at all: the checkpoint's own order.
//
//   codes  := 4 bits: byte[(n+1)/2] as in four_bit.h; INT8: int8[N][K]; 16-bit: value[N][K]
//   scales := 4 bits: fp32[G] or byte[G]; INT8: fp32[N]
//   nested := fp32[ceil(G/256)] nested_absmax, fp32 offset          (double quantization only)
//   tables := fp32[16] codebook, then fp32[256] nested map with double quantization (own_tables)
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"
#include "kernels/weight.h"

namespace nibble::reference {

PackedSize BytesOf(const WeightSpec& spec);

// Errors: INVALID_ARGUMENT when the matrix has another shape or form than the weight, or tables
// that the weight has no room for.
absl::Status Pack(const FourBitMatrix& matrix, Weight* weight);
absl::Status Pack(const Int8Matrix& matrix, Weight* weight);

// values: [count, K] in the weight's own type. Errors: INVALID_ARGUMENT when the rows are not the
// weight's.
absl::Status PackRows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight);

// The whole matrix [N, K] as the fp32 values it stands for. INT8's product is not one with them.
std::vector<float> Unpack(const Weight& weight);
// The INT8 matrix that was packed.
Int8Matrix UnpackInt8(const Weight& weight);

}  // namespace nibble::reference
