// Products of the bf16 mode: x and what multiplies it in bf16, two k of one output row in each of
// 16 lanes, sums and scales in fp32. Weights lie as in the fp32 mode (packing.h), and the order of
// additions is again the same for any number of x rows. A lane's step is
//   sum = fma(lower, lower', fma(upper, upper', sum)), subnormals being zero,
// which is what AVX512_BF16 does in one instruction.
//
//   x := per row dwords of two bf16, the first k in the lower half
//        4 bits: dword 4·i + j = (x[8i + j], x[8i + j + 4]): a line's 16-bit halves shifted right
//        by 4j have these two codes lowest bf16 weights: the same dwords; the weights are brought
//        into that order
#pragma once

#include "kernels/cpu/lanes_matmul.inl"

namespace nibble {
namespace {

constexpr int64_t kLinePairs = kLineValues / 2;

// Row `row` of *rows from x: [k].
void Bf16Input(const float* x, int64_t k, int64_t row, const Bf16Rows* rows) {
  uint32_t* pairs = rows->pairs + row * rows->stride;
  int64_t i = 0;
  for (; i < k; i += kLanes) StoreBf16Pairs(pairs + i / 2, LoadN(x + i, AtMostLanes(k - i)));
  if (i % kBf16Line != 0) StoreBf16Pairs(pairs + i / 2, Zero());
}

// kPanels panels from first_panel, kRows rows of x from first_row.
// Per group t = Σ x·code, dwords of x ascending; then acc += t·scale, fused.
template <int kPanels, int kRows>
void FourBitBf16Block(const MatMulTask& task, int64_t first_panel, int64_t first_row) {
  const Bf16Codebook codebook = LoadBf16Codebook(task.codebook);
  const int64_t line_stride = task.panels * kLineBytes;
  const char* codes = static_cast<const char*>(task.codes) + first_panel * kLineBytes;
  const int64_t x_stride = task.bf16.stride;
  const uint32_t* x = task.bf16.pairs + first_row * x_stride;
  PanelScales scales(task, first_panel);
  V16 acc[kPanels][kRows];
  for (auto& panel : acc) {
    for (V16& a : panel) a = Zero();
  }
  const int64_t groups = task.k / task.group_size;
  for (int64_t g = 0; g < groups; ++g) {
    V16 t[kPanels][kRows];
    for (auto& panel : t) {
      for (V16& a : panel) a = Zero();
    }
    for (int64_t line = 0; line < task.group_size / kLineValues; ++line) {
      I16 code[kPanels];
      for (int p = 0; p < kPanels; ++p) {
        code[p] = LoadI(codes + p * kLineBytes);
        Prefetch(codes + p * kLineBytes + kPrefetchBytes);
      }
      codes += line_stride;
#pragma GCC unroll 4
      for (int64_t j = 0; j < kLinePairs; ++j) {
        I16 w[kPanels];
        for (int p = 0; p < kPanels; ++p) {
          w[p] = LookupBf16(codebook, code[p]);
          code[p] = ShiftHalvesRight<4>(code[p]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const I16 xk = SetI(static_cast<int32_t>(x[r * x_stride + j]));
#pragma GCC unroll 8
          for (int p = 0; p < kPanels; ++p) t[p][r] = DotBf16(t[p][r], w[p], xk);
        }
      }
      x += kLinePairs;
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      const V16 scale = scales.At(p, g);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) acc[p][r] = Fma(t[p][r], scale, acc[p][r]);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    for (int r = 0; r < kRows; ++r) Finish(task, first_panel + p, first_row + r, acc[p][r]);
  }
}

// acc += x·w over the dwords of x ascending; a row of weights beyond K counts as zero.
template <int kPanels, int kRows>
void Bf16Block(const MatMulTask& task, int64_t first_panel, int64_t first_row) {
  const int64_t stride = task.panels * kLanes;
  const uint16_t* w = static_cast<const uint16_t*>(task.codes) + first_panel * kLanes;
  const int64_t x_stride = task.bf16.stride;
  const uint32_t* x = task.bf16.pairs + first_row * x_stride;
  V16 acc[kPanels][kRows];
  for (auto& panel : acc) {
    for (V16& a : panel) a = Zero();
  }
  for (int64_t k = 0; k < task.k; k += kLineValues) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kLinePairs; ++j) {
      const int64_t upper = k + j + kLinePairs;
      I16 wk[kPanels];
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        const uint16_t* at = w + p * kLanes;
        wk[p] = k + j >= task.k ? SetI(0)
                                : InterleaveHalves(at + (k + j) * stride,
                                                   upper < task.k ? at + upper * stride : nullptr);
        if (p % 2 == 0) Prefetch(at + upper * stride + kPrefetchBytes / 2);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const I16 xk = SetI(static_cast<int32_t>(x[r * x_stride + j]));
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) acc[p][r] = DotBf16(acc[p][r], wk[p], xk);
      }
    }
    x += kLinePairs;
  }
  for (int p = 0; p < kPanels; ++p) {
    for (int r = 0; r < kRows; ++r) Finish(task, first_panel + p, first_row + r, acc[p][r]);
  }
}

struct FourBitBf16Kind : FloatKind {
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    FourBitBf16Block<kPanels, kRows>(task, panel, row);
  }
};
struct Bf16Kind : FloatKind {
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    Bf16Block<kPanels, kRows>(task, panel, row);
  }
};

void FourBitBf16(const MatMulTask* task) { FourBitProduct<FourBitBf16Kind>(task); }
void HalfBf16(const MatMulTask* task) { Product<Bf16Kind>(task); }

}  // namespace
}  // namespace nibble
