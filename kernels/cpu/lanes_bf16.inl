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
    scales.Read(g, 0, kPanels);
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
      const V16 scale = scales.At(p);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) acc[p][r] = Fma(t[p][r], scale, acc[p][r]);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    const PanelOut out(task, first_panel + p);
    for (int r = 0; r < kRows; ++r) out.Finish(first_row + r, acc[p][r]);
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
        if (p % 2 != 0) continue;
        Prefetch(at + (k + j) * stride + kPrefetchBytes / 2);
        Prefetch(at + upper * stride + kPrefetchBytes / 2);
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
    const PanelOut out(task, first_panel + p);
    for (int r = 0; r < kRows; ++r) out.Finish(first_row + r, acc[p][r]);
  }
}

// A step is a group: t = Σ x·code, dwords of x ascending; then sum += t·scale, fused.
template <int kRows>
class FourBitBf16Rows {
 public:
  FourBitBf16Rows(const MatMulTask& task, int64_t first_row)
      : task_(task),
        x_(task.bf16.pairs + first_row * task.bf16.stride),
        codebook_(LoadBf16Codebook(task.codebook)),
        scales_(task, 0),
        sums_(task, first_row) {}

  int64_t NumSteps() const { return task_.k / task_.group_size; }
  void Finish() { sums_.Finish(); }

  // Group g of kPanels panels.
  template <int kPanels>
  inline void Step(int64_t g, int64_t panel) {
    if (panel == 0) scales_.Read(g, 0, task_.panels);
    const int64_t lines = task_.group_size / kLineValues;
    const int64_t line_stride = task_.panels * kLineBytes;
    const int64_t x_stride = task_.bf16.stride;
    const char* codes =
        static_cast<const char*>(task_.codes) + g * lines * line_stride + panel * kLineBytes;
    const uint32_t* x = x_ + g * lines * kLinePairs;
    V16 t[kPanels][kRows];
    for (auto& sums : t) {
      for (V16& lane_sum : sums) lane_sum = Zero();
    }
    for (int64_t line = 0; line < lines; ++line) {
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
          w[p] = LookupBf16(codebook_, code[p]);
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
      const V16 scale = scales_.At(panel + p);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        V16& sum = sums_.At(panel + p, r);
        sum = Fma(t[p][r], scale, sum);
      }
    }
  }

 private:
  const MatMulTask& task_;
  const uint32_t* x_;
  const Bf16Codebook codebook_;
  PanelScales scales_;
  Sums<kRows> sums_;
};

// A step is some k: sum += x·w over the dwords of x ascending; a row of weights beyond K counts as
// zero.
template <int kRows>
class Bf16WeightRows {
 public:
  Bf16WeightRows(const MatMulTask& task, int64_t first_row)
      : task_(task), x_(task.bf16.pairs + first_row * task.bf16.stride), sums_(task, first_row) {}

  int64_t NumSteps() const { return (task_.k + kHalfStep - 1) / kHalfStep; }
  void Finish() { sums_.Finish(); }

  template <int kPanels>
  inline void Step(int64_t step, int64_t panel) {
    const int64_t begin = step * kHalfStep;
    const int64_t end = begin + kHalfStep < task_.k ? begin + kHalfStep : task_.k;
    V16 sum[kPanels][kRows];
    sums_.Load(panel, sum);
    for (int64_t k = begin; k < end; k += kLineValues) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < kLinePairs; ++j) {
        I16 w[kPanels];
        Weights(k + j, panel, w);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const uint32_t pair = x_[r * task_.bf16.stride + k / 2 + j];
          const I16 xk = SetI(static_cast<int32_t>(pair));
#pragma GCC unroll 8
          for (int p = 0; p < kPanels; ++p) sum[p][r] = DotBf16(sum[p][r], w[p], xk);
        }
      }
    }
    sums_.Store(panel, sum);
  }

 private:
  // The weights of k and k + 4 of each panel.
  template <int kPanels>
  inline void Weights(int64_t k, int64_t panel, I16 (&w)[kPanels]) const {
    const int64_t stride = task_.panels * kLanes;
    const int64_t upper = k + kLinePairs;
    const uint16_t* at = static_cast<const uint16_t*>(task_.codes) + panel * kLanes;
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p, at += kLanes) {
      w[p] = k >= task_.k ? SetI(0)
                          : InterleaveHalves(at + k * stride,
                                             upper < task_.k ? at + upper * stride : nullptr);
      if (p % 2 != 0) continue;
      Prefetch(at + k * stride + kPrefetchBytes);
      Prefetch(at + upper * stride + kPrefetchBytes);
    }
  }

  const MatMulTask& task_;
  const uint32_t* x_;
  Sums<kRows> sums_;
};

struct FourBitBf16Kind : FloatKind {
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    FourBitBf16Block<kPanels, kRows>(task, panel, row);
  }
  template <int kRows>
  using Rows = FourBitBf16Rows<kRows>;
};
struct Bf16Kind : FloatKind {
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    Bf16Block<kPanels, kRows>(task, panel, row);
  }
  template <int kRows>
  using Rows = Bf16WeightRows<kRows>;
};

void FourBitBf16(const MatMulTask* task) { FourBitProduct<FourBitBf16Kind>(task); }
void HalfBf16(const MatMulTask* task) { FloatProduct<Bf16Kind>(task); }

}  // namespace
}  // namespace nibble
