// What a weight's values may be, wherever they are read: finite, and within their 16-bit type.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "engine/loader/tensor.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"

namespace nibble {

// Bits of |value|, which order like |value|; NaN comes after infinity.
inline constexpr uint32_t kInfinityBits = 0x7f800000u;
inline constexpr uint32_t kLargestF16Bits = 0x477fe000u;      // 65504
inline constexpr uint32_t kRoundsToF16InfBits = 0x477ff000u;  // 65520, and everything above it
inline constexpr uint32_t kRoundsToBf16InfBits = 0x7f7f8000u;

// The largest of these bits; 0 of nothing.
uint32_t LargestMagnitudeBits(std::span<const float> values);

// INVALID_ARGUMENT naming file, tensor and index of the first value, among rows from first_row on,
// whose bits are not below `limit`. There is one.
absl::Status NotFinite(const TensorRef& tensor, int64_t first_row, std::span<const float> values,
                       uint32_t limit);

// Quantizes rows [first, first + count) of a tensor: from the file's own 16 bits where they lie
// ready, else through `scratch`, which has room for the rows. Errors: NotFinite.
absl::Status QuantizeRows(const TensorRef& tensor, int64_t first, int64_t count,
                          std::span<float> scratch, FourBitQuantizer* quantizer);
absl::Status QuantizeRows(const TensorRef& tensor, int64_t first, int64_t count,
                          std::span<float> scratch, Int8Matrix* matrix);

}  // namespace nibble
