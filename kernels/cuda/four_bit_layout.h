// How a 4-bit matrix lies in device memory. One layout serves mma.sync and wgmma: what a lane loads
// is what its A fragments decode from.
//
//   codes  := panel[ceil(N/16)]              16 rows each; rows past N hold code 0 and scale 0
//   panel  := unit[ceil(K/64)]               64 k each; k past K hold code 0 (x is zero there)
//   unit   := lane[32]                       512 bytes
//   lane l := word[4], g = l / 4, t = l % 4  16 bytes
//       word 0: row g,     k = 8t … 8t+7       word 2: row g,     k = 32 + 8t … 32 + 8t+7
//       word 1: row g + 8, k = 8t … 8t+7       word 3: row g + 8, k = 32 + 8t … 32 + 8t+7
//   word   := the four bytes of the checkpoint's own row: byte j = code[k+2j] << 4 | code[k+2j+1]
//
// So a panel's first 8 k of a row are 4 bytes of that row in the checkpoint. mma step s (0 … 3) of
// a unit takes bytes 2(s%2) and 2(s%2)+1 of words 2(s/2) (row g) and 2(s/2)+1 (row g + 8): thread
// t's fragment holds k = 32(s/2) + 8t + 4(s%2) + {0, 1} and {2, 3} where the PTX ISA says 2t + {0,
// 1} and 2t + 8 + {0, 1}. The order of k inside a unit is free as long as x is permuted alike:
// UnitK(). With group 32 each half of a unit is a group of its own.
//
//   scales := absmax, fp32 or 8-bit codes
//       groups inside rows (K % group == 0): [ceil(N/16)][K/group][16 rows]
//       groups that straddle rows: [G], the checkpoint's order
//   nested := fp32[ceil(G/256)] by the checkpoint's group number, then the fp32 offset
//   tables := as kernels/weight.h says
#pragma once

#include <cstdint>

#include "kernels/weight.h"

namespace nibble::cuda {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kUnitK = 64;
inline constexpr int64_t kUnitBytes = 512;

// The k (0 … 63) at fragment position p (0 … 15) of mma step s (0 … 3) of a unit.
constexpr int UnitK(int s, int p) {
  return 32 * (s / 2) + 8 * (p % 8 / 2) + 4 * (s % 2) + 2 * (p / 8) + p % 2;
}

constexpr int64_t NumPanels(int64_t n) { return (n + kPanelRows - 1) / kPanelRows; }
constexpr int64_t NumUnits(int64_t k) { return (k + kUnitK - 1) / kUnitK; }

// Groups lie inside rows and each is half a unit or whole units: what the tensor-core paths take.
constexpr bool FitsUnits(const WeightSpec& spec) {
  return spec.k % spec.group_size == 0 && (spec.group_size == 32 || spec.group_size % kUnitK == 0);
}

PackedSize FourBitPackedBytes(const WeightSpec& spec);

// A packed matrix as kernels take it. Plain data without padding.
struct FourBitView {
  const uint8_t* codes;
  const float* absmax;          // or null
  const uint8_t* absmax_codes;  // or null
  const float* nested;          // with absmax_codes
  const float* codebook;        // [16]
  const float* map;             // [256], with absmax_codes
  int64_t n;
  int64_t k;
  int64_t group;
  int64_t straddles;  // 1: scales in the checkpoint's order
};

}  // namespace nibble::cuda
