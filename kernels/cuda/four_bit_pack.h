// The checkpoint's 4-bit matrix to the packed layout (four_bit_layout.h) and back, on the device, a
// slice of panels at a time so that a small staging buffer serves. A permutation: nothing is
// computed, every byte comes back.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_tables.h"
#include "kernels/cuda/four_bit_layout.h"
#include "kernels/cuda/launch.h"

namespace nibble::cuda {

FourBitView ViewOf(const Weight& weight, const DeviceTables& tables);

// Groups lie inside rows, so scales are transposed; else they keep the checkpoint's order.
constexpr bool GroupsInRows(const WeightSpec& spec) { return spec.k % spec.group_size == 0; }

// A slice's place in the checkpoint's arrays. 16 rows are a whole number of bytes for any K, so
// every slice of panels begins with a whole byte.
struct FourBitSlice {
  int64_t begin;
  int64_t bytes;
};
// Of FourBitMatrix::codes, for panels [first, first + count).
constexpr FourBitSlice CodesOfPanels(const WeightSpec& spec, int64_t first, int64_t count) {
  const int64_t panel_bytes = 8 * spec.k, all = (spec.n * spec.k + 1) / 2;
  const int64_t end = (first + count) * panel_bytes;
  return {first * panel_bytes, (end < all ? end : all) - first * panel_bytes};
}
// Of FourBitMatrix::absmax or absmax_codes; GroupsInRows(spec).
constexpr FourBitSlice ScalesOfPanels(const WeightSpec& spec, int64_t first, int64_t count) {
  const int64_t row_bytes = spec.k / spec.group_size * (spec.double_quant ? 1 : 4);
  const int64_t end = (first + count) * 16;
  return {first * 16 * row_bytes, ((end < spec.n ? end : spec.n) - first * 16) * row_bytes};
}

// Packs the codes of panels [first, first + count) from device memory that holds their slice
// (CodesOfPanels), aligned to 4. `staged` may be overwritten once the launch is done.
void PackFourBitCodes(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                      const void* staged);
// Likewise the scales (ScalesOfPanels). Where groups straddle rows the packed scales are the
// checkpoint's own array: copy it. So are, always, `nested` (nested_absmax, then the offset) and
// `tables` (codebook, then with double quantization the nested map).
void PackFourBitScales(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                       const void* staged);

// The inverse: writes the slices. An odd last nibble is the code of zero.
void UnpackFourBitCodes(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                        void* staged);
void UnpackFourBitScales(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                         void* staged);

}  // namespace nibble::cuda
