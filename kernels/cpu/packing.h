// How matrices lie in CPU memory: "row lanes". Knows layouts and sizes; computes nothing.
//
//   matrix       := super_panel[ceil(panels / width)]; a panel is 16 output rows, one per lane;
//                   panels = ceil(N/16); width = PanelWidth(N); the last may hold fewer panels
//   line         := 16 little-endian dwords, one per row of a panel
//   4-bit codes  := super_panel of line[ceil(K/8)][panels of it]; nibble j (bits 4j …) of a dword
//                   is the code of k = 8·line + j
//   4-bit scales := K % group_size == 0: super_panel of [K/group_size][panels of it][16], fp32 or
//                   8-bit codes; else the checkpoint's own order, since groups straddle rows
//   4-bit nested := fp32 nested_absmax[ceil(groups/256)] in the checkpoint's order, then the offset
//   4-bit tables := own_tables: fp32 codebook[16], then with double quantization the map[256]
//   INT8 codes   := super_panel of line[ceil(K/4)][panels of it]; byte j of a dword is the code of
//                   k = 4·line + j
//   INT8 scales  := fp32 absmax[16·panels]
//   16-bit       := super_panel of [K][panels of it][16] values
//
// Rows beyond N hold zeros (NF4: code 7), k beyond K too. Without such padding the bytes are
// exactly the checkpoint's.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"
#include "kernels/weight.h"

namespace nibble {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Panels side by side in a super panel: enough to hide the latency of one row's additions, and if
// possible a divisor of their number, so that work splits evenly.
int64_t PanelWidth(int64_t n);

inline int64_t NumPanels(int64_t n) { return CeilDiv(n, kLanes); }
inline bool GroupsStraddleRows(const WeightSpec& spec) { return spec.k % spec.group_size != 0; }

PackedSize PackedBytesOf(const WeightSpec& spec);

// Errors: INVALID_ARGUMENT when the matrix has another shape or form than the weight, arrays of
// wrong lengths, or tables of its own that the weight has no room for.
absl::Status PackFourBitMatrix(const FourBitMatrix& matrix, Weight* weight);
// Errors: INVALID_ARGUMENT when the matrix has another shape or form than the weight, arrays of
// wrong lengths, or more columns than kMaxInt8Columns.
absl::Status PackInt8Matrix(const Int8Matrix& matrix, Weight* weight);
// Errors: INVALID_ARGUMENT when the rows are not the weight's.
absl::Status Pack16Rows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight);

// The matrix that was packed, in the checkpoint's own order. Codes and scales are its very bytes (a
// pad nibble is the code of zero); tables too with own_tables, else they are the format's.
FourBitMatrix UnpackFourBitMatrix(const Weight& weight);
Int8Matrix UnpackInt8Matrix(const Weight& weight);

// values[i] = element (n, first_k + i) of a packed 16-bit matrix.
void UnpackRow16(const Weight& weight, int64_t n, int64_t first_k, std::span<uint16_t> values);

// values[i] = the fp32 value of element (n, first_k + i) of a packed 4-bit or INT8 matrix, as
// DequantizeFourBit and DequantizeInt8 give it.
void UnpackRow(const Weight& weight, int64_t n, int64_t first_k, std::span<float> values);

// Fills everything of the task that the matrix and the number of the super panel determine.
void DescribeSuperPanel(const Weight& weight, int64_t super_panel, MatMulTask* task);

}  // namespace nibble
