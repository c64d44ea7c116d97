// Products with packed weights: 16 output rows are 16 lanes, so no sum is horizontal and the order
// of additions is the same for any number of x rows. Layouts: packing.h.
#pragma once

#include "kernels/cpu/lanes_decoded.inl"
#include "kernels/cpu/lanes_product.inl"

namespace nibble {
namespace {

// kPanels panels from first_panel, kRows rows of x from first_row.
// Per group t = Σ x[k]·code, k ascending; then acc += t·scale, all fused.
template <int kPanels, int kRows>
void FourBitBlock(const MatMulTask& task, int64_t first_panel, int64_t first_row) {
  const Codebook codebook = LoadCodebook(task.codebook);
  const int64_t line_stride = task.panels * kLineBytes;
  const char* codes = static_cast<const char*>(task.codes) + first_panel * kLineBytes;
  const float* x = task.x + first_row * task.x_stride;
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
#pragma GCC unroll 8
      for (int64_t j = 0; j < kLineValues; ++j) {
        V16 w[kPanels];
        for (int p = 0; p < kPanels; ++p) {
          w[p] = Lookup(codebook, code[p]);
          code[p] = ShiftRight<4>(code[p]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const V16 xk = Set1(x[r * task.x_stride + j]);
#pragma GCC unroll 8
          for (int p = 0; p < kPanels; ++p) t[p][r] = Fma(w[p], xk, t[p][r]);
        }
      }
      x += kLineValues;
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

// acc += x[k]·w, k ascending, fused.
template <LaneType kType, int kPanels, int kRows>
void HalfBlock(const MatMulTask& task, int64_t first_panel, int64_t first_row) {
  const int64_t stride = task.panels * kLanes;
  const uint16_t* w = static_cast<const uint16_t*>(task.codes) + first_panel * kLanes;
  const float* x = task.x + first_row * task.x_stride;
  V16 acc[kPanels][kRows];
  for (auto& panel : acc) {
    for (V16& a : panel) a = Zero();
  }
  for (int64_t k = 0; k < task.k; ++k) {
    V16 wk[kPanels];
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      wk[p] = LoadAs<kType>(w + p * kLanes);
      if (p % 2 == 0) Prefetch(w + p * kLanes + kPrefetchBytes / 2);
    }
    w += stride;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V16 xk = Set1(x[r * task.x_stride + k]);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) acc[p][r] = Fma(wk[p], xk, acc[p][r]);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    const PanelOut out(task, first_panel + p);
    for (int r = 0; r < kRows; ++r) out.Finish(first_row + r, acc[p][r]);
  }
}

// kRows rows of x times all panels of a super panel, in steps of some k: weights are read in the
// order they lie in memory, and sums wait in the first cache between steps.
template <int kRows>
class Sums {
 public:
  Sums(const MatMulTask& task, int64_t first_row) : task_(task), first_row_(first_row) {
    for (int64_t p = 0; p < task.panels; ++p) {
      for (V16& sum : at_[p]) sum = Zero();
    }
  }
  V16& At(int64_t p, int64_t r) { return at_[p][r]; }
  // Those of panels panel … panel + kPanels - 1.
  template <int kPanels>
  inline void Load(int64_t panel, V16 (&sum)[kPanels][kRows]) const {
    for (int p = 0; p < kPanels; ++p) {
      for (int r = 0; r < kRows; ++r) sum[p][r] = at_[panel + p][r];
    }
  }
  template <int kPanels>
  inline void Store(int64_t panel, const V16 (&sum)[kPanels][kRows]) {
    for (int p = 0; p < kPanels; ++p) {
      for (int r = 0; r < kRows; ++r) at_[panel + p][r] = sum[p][r];
    }
  }
  void Finish() {
    for (int64_t p = 0; p < task_.panels; ++p) {
      const PanelOut out(task_, p);
      for (int64_t r = 0; r < kRows; ++r) out.Finish(first_row_ + r, at_[p][r]);
    }
  }

 private:
  const MatMulTask& task_;
  const int64_t first_row_;
  V16 at_[kMaxPanels][kRows];
};

// A step is a group: t = Σ x[k]·code, k ascending; then sum += t·scale, all fused.
template <int kRows>
class FourBitRows {
 public:
  FourBitRows(const MatMulTask& task, int64_t first_row)
      : task_(task),
        x_(task.x + first_row * task.x_stride),
        codebook_(LoadCodebook(task.codebook)),
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
    const char* codes =
        static_cast<const char*>(task_.codes) + g * lines * line_stride + panel * kLineBytes;
    const float* x = x_ + g * task_.group_size;
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
#pragma GCC unroll 8
      for (int64_t j = 0; j < kLineValues; ++j) {
        V16 w[kPanels];
        for (int p = 0; p < kPanels; ++p) {
          w[p] = Lookup(codebook_, code[p]);
          code[p] = ShiftRight<4>(code[p]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const V16 xk = Set1(x[r * task_.x_stride + j]);
#pragma GCC unroll 8
          for (int p = 0; p < kPanels; ++p) t[p][r] = Fma(w[p], xk, t[p][r]);
        }
      }
      x += kLineValues;
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
  const float* x_;
  const Codebook codebook_;
  PanelScales scales_;
  Sums<kRows> sums_;
};

// A step is some k: sum += x[k]·w, k ascending, fused.
template <LaneType kType, int kRows>
class HalfRows {
 public:
  HalfRows(const MatMulTask& task, int64_t first_row)
      : task_(task), x_(task.x + first_row * task.x_stride), sums_(task, first_row) {}

  int64_t NumSteps() const { return (task_.k + kHalfStep - 1) / kHalfStep; }
  void Finish() { sums_.Finish(); }

  template <int kPanels>
  inline void Step(int64_t step, int64_t panel) {
    const int64_t stride = task_.panels * kLanes;
    const int64_t begin = step * kHalfStep;
    const int64_t end = begin + kHalfStep < task_.k ? begin + kHalfStep : task_.k;
    const uint16_t* w = static_cast<const uint16_t*>(task_.codes) + begin * stride + panel * kLanes;
    V16 sum[kPanels][kRows];
    sums_.Load(panel, sum);
    for (int64_t k = begin; k < end; ++k) {
      V16 wk[kPanels];
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        wk[p] = LoadAs<kType>(w + p * kLanes);
        if (p % 2 == 0) Prefetch(w + p * kLanes + kPrefetchBytes);
      }
      w += stride;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V16 xk = Set1(x_[r * task_.x_stride + k]);
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) sum[p][r] = Fma(wk[p], xk, sum[p][r]);
      }
    }
    sums_.Store(panel, sum);
  }

 private:
  const MatMulTask& task_;
  const float* x_;
  Sums<kRows> sums_;
};

// How a product is cut into register blocks: panels × rows. Each kind of weight says what a block
// does and how large it is.
struct FloatKind {
  static constexpr int kMaxRows = nibble::kMaxRows;
  static constexpr int PanelsOf(int rows) {
    return rows == 1 ? kPanelsOfOne : rows <= 3 ? kPanelsOfFew : kPanelsOfMany;
  }
};
struct FourBitKind : FloatKind {
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    FourBitBlock<kPanels, kRows>(task, panel, row);
  }
  template <int kRows>
  using Rows = FourBitRows<kRows>;
  using Decoded = DecodedGroups;
};
template <LaneType kType>
struct HalfKind : FloatKind {
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    HalfBlock<kType, kPanels, kRows>(task, panel, row);
  }
  template <int kRows>
  using Rows = HalfRows<kType, kRows>;
  using Decoded = DecodedHalves<kType>;
};

// All panels for kRows rows, kPanels at a time; what is left over in one narrower block.
template <typename Kind, int kPanels, int kRows, typename Task>
void Panels(const Task& task, int64_t panel, int64_t row) {
  for (; panel + kPanels <= task.panels; panel += kPanels) {
    Kind::template Block<kPanels, kRows>(task, panel, row);
  }
  if constexpr (kPanels > 1) {
    if (panel < task.panels) Panels<Kind, kPanels - 1, kRows>(task, panel, row);
  }
}

// One step of all panels from `panel` on, kPanels at a time; what is left over in one narrower
// block.
template <int kPanels, typename Rows>
void StepPanels(const MatMulTask& task, int64_t step, int64_t panel, Rows* rows) {
  for (; panel + kPanels <= task.panels; panel += kPanels) {
    rows->template Step<kPanels>(step, panel);
  }
  if constexpr (kPanels > 1) {
    if (panel < task.panels) StepPanels<kPanels - 1>(task, step, panel, rows);
  }
}

// So few rows that all panels of a super panel are multiplied at once, their sums in registers all
// the way; more rows go in steps.
constexpr int kRowsAtOnce = 3;

// `count` rows, kRowsAtOnce < count <= kRows.
template <typename Kind, int kRows>
void SteppedRows(const MatMulTask& task, int64_t row, int64_t count) {
  if constexpr (kRows > kRowsAtOnce + 1) {
    if (count < kRows) return SteppedRows<Kind, kRows - 1>(task, row, count);
  }
  typename Kind::template Rows<kRows> rows(task, row);
  for (int64_t step = 0; step < rows.NumSteps(); ++step) {
    StepPanels<Kind::PanelsOf(kRows)>(task, step, 0, &rows);
  }
  rows.Finish();
}

// The fewest blocks of at most kMaxRows rows, as even as they can be.
template <typename Kind>
void SteppedProduct(const MatMulTask* task) {
  const int64_t blocks = (task->rows + Kind::kMaxRows - 1) / Kind::kMaxRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t row = b * task->rows / blocks;
    SteppedRows<Kind, Kind::kMaxRows>(*task, row, (b + 1) * task->rows / blocks - row);
  }
}

// All panels for `count` rows, count <= kRows: one row needs many panels to hide the latency of its
// chain of additions, many rows do not.
template <typename Kind, int kRows, typename Task>
void Rows(const Task& task, int64_t row, int64_t count) {
  constexpr int kPanels = Kind::PanelsOf(kRows);
  if (count == kRows) return Panels<Kind, kPanels, kRows>(task, 0, row);
  if constexpr (kRows > 1) Rows<Kind, kRows - 1>(task, row, count);
}

// The fewest blocks of at most kMaxRows rows, as even as they can be.
template <typename Kind, typename Task>
void Product(const Task* task) {
  const int64_t blocks = (task->rows + Kind::kMaxRows - 1) / Kind::kMaxRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t row = b * task->rows / blocks;
    Rows<Kind, Kind::kMaxRows>(*task, row, (b + 1) * task->rows / blocks - row);
  }
}

// A product of few rows has blocks of its own; more rows go in steps.
template <typename Kind>
struct FewRows : Kind {
  static constexpr int kMaxRows = Kind::kMaxRows < kRowsAtOnce ? Kind::kMaxRows : kRowsAtOnce;
};
template <typename Kind>
void FloatProduct(const MatMulTask* task) {
  if constexpr (kDecodedBlock > 0 && requires { typename Kind::Decoded; }) {
    using Decoded = typename Kind::Decoded;
    if (task->rows > kRowsAtOnce && Decoded::Takes(*task)) {
      return DecodedProduct<Decoded, kDecodedBlock>(task);
    }
  }
  if constexpr (Kind::kMaxRows > kRowsAtOnce) {
    if (task->rows > kRowsAtOnce) return SteppedProduct<Kind>(task);
  }
  Product<FewRows<Kind>>(task);
}

// Scales that are un-nested once for all rows, if they are no more than fit the stack easily.
constexpr int64_t kMaxPlainScales = 32768;

// The same product from plain scales. A function of its own, because room on the stack is paid for
// when a function begins.
template <typename Kind>
__attribute__((noinline)) void PlainScalesProduct(const MatMulTask* task) {
  const int64_t groups = task->k / task->group_size;
  float scales[kMaxPlainScales];
  PanelScales nested(*task, 0);
  for (int64_t g = 0; g < groups; ++g) {
    nested.Read(g, 0, task->panels);
    for (int64_t p = 0; p < task->panels; ++p) {
      Store(scales + (g * task->panels + p) * kLanes, nested.At(p));
    }
  }
  MatMulTask plain = *task;
  plain.double_quant = 0;
  plain.scales = scales;
  FloatProduct<Kind>(&plain);
}

// With rows enough to share them, scales are un-nested once.
template <typename Kind>
void FourBitProduct(const MatMulTask* task) {
  const bool fits = task->k / task->group_size * task->panels * kLanes <= kMaxPlainScales;
  if (task->double_quant != 0 && task->rows > Kind::kMaxRows && fits) {
    return PlainScalesProduct<Kind>(task);
  }
  FloatProduct<Kind>(task);
}

void FourBit(const MatMulTask* task) { FourBitProduct<FourBitKind>(task); }

void Half(const MatMulTask* task, LaneType type) {
  type == kLaneF16 ? FloatProduct<HalfKind<kLaneF16>>(task)
                   : FloatProduct<HalfKind<kLaneBF16>>(task);
}

// The scale of group `number` of the whole matrix.
inline float ScaleOf(const MatMulTask& task, int64_t number) {
  if (task.double_quant == 0) return static_cast<const float*>(task.scales)[number];
  const float mapped = task.map[static_cast<const uint8_t*>(task.scales)[number]];
  return mapped * task.nested[number >> 8] + task.nested_offset;
}

constexpr int64_t kChunk = 128;  // k values that are decoded at a time

// Groups straddle rows, so each lane changes its scale at its own k.
class StraddlingPanel {
 public:
  StraddlingPanel(const MatMulTask& task, int64_t panel) : task_(task), panel_(panel) {}

  // values[i][lane] = code · scale for k in [first, end), first being a multiple of 8.
  void Decode(int64_t first, int64_t end, float (*values)[kLanes]) {
    const Codebook codebook = LoadCodebook(task_.codebook);
    for (int64_t k = first; k < end; k += kLineValues) {
      const char* line = static_cast<const char*>(task_.codes) +
                         (k / kLineValues * task_.panels + panel_) * kLineBytes;
      I16 code = LoadI(line);
      for (int64_t j = k; j < k + kLineValues && j < end; ++j) {
        if (j == next_change_) LoadScales(j);
        Store(values[j - first], Mul(Lookup(codebook, code), Load(scale_)));
        code = ShiftRight<4>(code);
      }
    }
  }

 private:
  void LoadScales(int64_t k) {
    next_change_ = task_.k;
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t n = task_.first_n + panel_ * kLanes + i;
      if (n >= task_.n) {
        scale_[i] = 0;
        continue;
      }
      const int64_t flat = n * task_.k + k;
      const int64_t number = flat / task_.group_size;
      scale_[i] = ScaleOf(task_, number);
      const int64_t change = k + (number + 1) * task_.group_size - flat;
      next_change_ = change < next_change_ ? change : next_change_;
    }
  }

  const MatMulTask& task_;
  const int64_t panel_;
  int64_t next_change_ = 0;
  float scale_[kLanes];
};

constexpr int64_t kStraddlingRows = 16;

// acc += x[k]·(code·scale), k ascending, fused; the product in brackets is rounded.
void StraddlingBlock(const MatMulTask& task, int64_t panel, int64_t row, int64_t count) {
  StraddlingPanel weights(task, panel);
  float w[kChunk][kLanes];
  V16 acc[kStraddlingRows];
  for (V16& a : acc) a = Zero();
  for (int64_t first = 0; first < task.k; first += kChunk) {
    const int64_t end = first + kChunk < task.k ? first + kChunk : task.k;
    weights.Decode(first, end, w);
    for (int64_t r = 0; r < count; r += 4) {
      const float* x[4];
      for (int64_t i = 0; i < 4; ++i) {
        x[i] = task.x + (row + (r + i < count ? r + i : r)) * task.x_stride + first;
      }
      V16 a[4] = {acc[r], acc[r + 1], acc[r + 2], acc[r + 3]};
      for (int64_t k = 0; k < end - first; ++k) {
        const V16 wk = Load(w[k]);
        for (int64_t i = 0; i < 4; ++i) a[i] = Fma(wk, Set1(x[i][k]), a[i]);
      }
      for (int64_t i = 0; i < 4; ++i) acc[r + i] = a[i];
    }
  }
  const PanelOut out(task, panel);
  for (int64_t r = 0; r < count; ++r) out.Finish(row + r, acc[r]);
}

void FourBitStraddling(const MatMulTask* task) {
  for (int64_t panel = 0; panel < task->panels; ++panel) {
    for (int64_t row = 0; row < task->rows; row += kStraddlingRows) {
      const int64_t left = task->rows - row;
      StraddlingBlock(*task, panel, row, left < kStraddlingRows ? left : kStraddlingRows);
    }
  }
}

}  // namespace
}  // namespace nibble
