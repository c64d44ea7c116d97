// What every device refuses before it packs a matrix, in the same words.
// Errors of all: INVALID_ARGUMENT when the matrix has another shape or form than the weight, arrays
// of wrong lengths, or tables of its own that the weight has no room for.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"
#include "kernels/weight.h"

namespace nibble {

absl::Status CheckPackFourBit(const FourBitMatrix& matrix, const WeightSpec& spec);
// Also refuses more than kMaxInt8Columns.
absl::Status CheckPackInt8(const Int8Matrix& matrix, const WeightSpec& spec);
// Rows [first_row, first_row + count).
absl::Status CheckPack16(int64_t first_row, int64_t count, const WeightSpec& spec);

}  // namespace nibble
