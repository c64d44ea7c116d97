// How matrices lie in CPU memory: "row lanes". Knows layouts and sizes; computes nothing.
//
//   matrix       := super_panel[ceil(panels / width)]; a panel is 16 output rows, one per lane;
//                   panels = ceil(N/16); width = PanelWidth(N); the last may hold fewer panels
//   NF4 codes    := super_panel of line[ceil(K/8)][panels of it]; a line is 16 little-endian
//   dwords,
//                   one per row; nibble j (bits 4j …) of a dword is the code of k = 8·line + j
//   NF4 scales   := K % group_size == 0: super_panel of [K/group_size][panels of it][16], fp32 or
//                   8-bit codes; else the checkpoint's own order, since groups straddle rows
//   NF4 nested   := fp32 nested_absmax[ceil(groups/256)] in the checkpoint's order, then the offset
//   16-bit       := super_panel of [K][panels of it][16] values
//
// Rows beyond N hold zeros (code 7), k beyond K too. Without such padding the bytes are exactly the
// checkpoint's.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/four_bit.h"
#include "kernels/weight.h"

namespace nibble {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Panels side by side in a super panel: enough to hide the latency of one row's additions, and if
// possible a divisor of their number, so that work splits evenly.
int64_t PanelWidth(int64_t n);

inline int64_t NumPanels(int64_t n) { return CeilDiv(n, kLanes); }
inline bool GroupsStraddleRows(const WeightSpec& spec) { return spec.k % spec.group_size != 0; }

PackedSize PackedBytesOf(const WeightSpec& spec);

// Errors: INVALID_ARGUMENT when the matrix has another shape, format or nested map than the weight.
absl::Status PackFourBitMatrix(const FourBitMatrix& matrix, Weight* weight);
// Errors: INVALID_ARGUMENT when the rows are not the weight's.
absl::Status Pack16Rows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight);

// values[i] = element (n, first_k + i) of a packed 16-bit matrix.
void UnpackRow16(const Weight& weight, int64_t n, int64_t first_k, std::span<uint16_t> values);

// Fills everything of the task that the matrix and the number of the super panel determine.
void DescribeSuperPanel(const Weight& weight, int64_t super_panel, MatMulTask* task);

}  // namespace nibble
