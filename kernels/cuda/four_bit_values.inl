// Single values of packed 4-bit matrices in fp32, for the kernels that want them exactly. Device
// code.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/four_bit_layout.h"

namespace nibble::cuda {

// A codebook in shared memory, entry `code` 32 times in line `code` of 128 bytes: lane l reads bank
// l, whatever the data.
inline constexpr uint32_t kCodebookBytes = 16 * 128;

__device__ __forceinline__ void FillCodebook(float* lines, const float* codebook) {
  for (uint32_t i = threadIdx.x; i < 16 * 32; i += blockDim.x) lines[i] = codebook[i / 32];
}

// The value of code i (0 … 7) of a word; lane4: lane · 4.
__device__ __forceinline__ float ValueOf(const float* lines, uint32_t word, int i, uint32_t lane4) {
  const uint32_t code = word >> (8 * (i / 2) + (i % 2 == 0 ? 4 : 0)) & 15u;
  return *reinterpret_cast<const float*>(reinterpret_cast<const char*>(lines) +
                                         (code << 7 | lane4));
}

// Groups are a power of two long.
__device__ __forceinline__ int GroupShift(const FourBitView& w) {
  return 31 - __clz(static_cast<int>(w.group));
}

__device__ __forceinline__ float OffsetOf(const FourBitView& w) {
  if (w.nested == nullptr) return 0;
  const int64_t groups = (w.n * w.k + w.group - 1) / w.group;
  return w.nested[(groups + 255) / 256];
}

// The scale of group `number` of the checkpoint that lies at `at` of the packed scales.
__device__ __forceinline__ float ScaleAt(const FourBitView& w, int64_t at, int64_t number,
                                         float offset) {
  if (w.absmax != nullptr) return w.absmax[at];
  const float product = w.map[w.absmax_codes[at]] * w.nested[number >> 8];
  return product + offset;
}

// The scale of group `group` of row n, where groups lie in rows.
__device__ __forceinline__ float ScaleInRow(const FourBitView& w, int64_t groups, int64_t n,
                                            int64_t group, float offset) {
  const int64_t at = (n / kPanelRows * groups + group) * kPanelRows + n % kPanelRows;
  return ScaleAt(w, at, n * groups + group, offset);
}

}  // namespace nibble::cuda
