// The oracle's packed layout, which is no layout at all: the checkpoint's own order.
//
//   codes  := NF4: byte[(n+1)/2] as in four_bit.h; 16-bit: value[N][K] row-major
//   scales := fp32[G] or byte[G]
//   nested := fp32[ceil(G/256)] nested_absmax, fp32 offset          (double quantization only)
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/four_bit.h"
#include "kernels/weight.h"

namespace nibble::reference {

PackedSize BytesOf(const WeightSpec& spec);

// Errors: INVALID_ARGUMENT when the matrix has another shape, form or nested map than the weight.
absl::Status Pack(const FourBitMatrix& matrix, Weight* weight);

// values: [count, K] in the weight's own type. Errors: INVALID_ARGUMENT when the rows are not the
// weight's.
absl::Status PackRows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight);

// The whole matrix [N, K] as the fp32 values it stands for.
std::vector<float> Unpack(const Weight& weight);

// Row `row` of a 16-bit matrix: [K] values of the type DTypeOf.
const uint16_t* RowOf(const Weight& weight, int64_t row);
DType DTypeOf(const Weight& weight);

}  // namespace nibble::reference
