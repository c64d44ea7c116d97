// Products of many rows where looking weights up is slow: decoded once for all of them.
#pragma once

#include "kernels/cpu/lanes_product.inl"

namespace nibble {
namespace {

// Where a look-up costs as much as the products that a register block makes of it, weights are
// decoded for many rows at once, into the first cache.
constexpr int64_t kDecodedRows = 48;
constexpr int64_t kDecodedValues = 128;  // of k, at most

// Groups of 4-bit weights: t = Σ x[k]·code, k ascending; then sum += t·scale, all fused.
class DecodedGroups {
 public:
  explicit DecodedGroups(const MatMulTask& task)
      : task_(task), codebook_(LoadCodebook(task.codebook)), scales_(task, 0) {}
  static bool Takes(const MatMulTask& task) { return task.group_size <= kDecodedValues; }
  int64_t step() const { return task_.group_size; }

  void Decode(int64_t k, int64_t panel, float* weights) {
    const int64_t g = k / task_.group_size;
    if (panel == 0) scales_.Read(g, 0, task_.panels);
    scale_ = scales_.At(panel);
    const char* codes = static_cast<const char*>(task_.codes) +
                        (k / kLineValues * task_.panels + panel) * kLineBytes;
    for (int64_t i = 0; i < task_.group_size; i += kLineValues) {
      I16 code = LoadI(codes);
      Prefetch(codes + kPrefetchBytes);
      codes += task_.panels * kLineBytes;
#pragma GCC unroll 8
      for (int64_t j = 0; j < kLineValues; ++j, weights += kLanes) {
        Store(weights, Lookup(codebook_, code));
        code = ShiftRight<4>(code);
      }
    }
  }
  V16 Begin(V16) const { return Zero(); }
  V16 End(V16 t, V16 sum) const { return Fma(t, scale_, sum); }

 private:
  const MatMulTask& task_;
  const Codebook codebook_;
  PanelScales scales_;
  V16 scale_;
};

// 16-bit weights: sum += x[k]·w, k ascending, fused.
template <LaneType kType>
class DecodedHalves {
 public:
  explicit DecodedHalves(const MatMulTask& task) : task_(task) {}
  static bool Takes(const MatMulTask&) { return true; }
  int64_t step() const { return kHalfStep; }

  void Decode(int64_t k, int64_t panel, float* weights) {
    const int64_t stride = task_.panels * kLanes;
    const uint16_t* w = static_cast<const uint16_t*>(task_.codes) + k * stride + panel * kLanes;
    const int64_t end = k + kHalfStep < task_.k ? k + kHalfStep : task_.k;
    for (; k < end; ++k, w += stride, weights += kLanes) {
      if (panel % 2 == 0) Prefetch(w + kPrefetchBytes);
      Store(weights, LoadAs<kType>(w));
    }
  }
  V16 Begin(V16 sum) const { return sum; }
  V16 End(V16 t, V16) const { return t; }

 private:
  const MatMulTask& task_;
};

// `count` values of k of `rows` rows, rows <= kRows, times one panel.
template <int kRows, typename Weights>
void AddDecoded(const Weights& decoded, const float* weights, int64_t count, const float* x,
                int64_t x_stride, int64_t rows, V16* sums) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return AddDecoded<kRows - 1>(decoded, weights, count, x, x_stride, rows, sums);
    }
  }
  V16 t[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) t[r] = decoded.Begin(sums[r]);
  for (int64_t k = 0; k < count; ++k) {
    const V16 w = Load(weights + k * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) t[r] = Fma(w, Set1(x[r * x_stride + k]), t[r]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r] = decoded.End(t[r], sums[r]);
}

// At most kDecodedRows rows, in the fewest blocks of kBlock, as even as they can be.
template <typename Weights, int kBlock>
void DecodedRowsOf(const MatMulTask& task, int64_t first_row, int64_t rows) {
  Weights decoded(task);
  float weights[kDecodedValues * kLanes];
  V16 sums[kMaxPanels][kDecodedRows];
  for (auto& panel : sums) {
    for (int64_t r = 0; r < rows; ++r) panel[r] = Zero();
  }
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  for (int64_t k = 0; k < task.k; k += decoded.step()) {
    const int64_t count = task.k - k < decoded.step() ? task.k - k : decoded.step();
    for (int64_t p = 0; p < task.panels; ++p) {
      decoded.Decode(k, p, weights);
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t row = b * rows / blocks;
        AddDecoded<kBlock>(decoded, weights, count, task.x + (first_row + row) * task.x_stride + k,
                           task.x_stride, (b + 1) * rows / blocks - row, sums[p] + row);
      }
    }
  }
  for (int64_t p = 0; p < task.panels; ++p) {
    const PanelOut out(task, p);
    for (int64_t r = 0; r < rows; ++r) out.Finish(first_row + r, sums[p][r]);
  }
}

template <typename Weights, int kBlock>
void DecodedProduct(const MatMulTask* task) {
  const int64_t blocks = (task->rows + kDecodedRows - 1) / kDecodedRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t row = b * task->rows / blocks;
    DecodedRowsOf<Weights, kBlock>(*task, row, (b + 1) * task->rows / blocks - row);
  }
}

}  // namespace
}  // namespace nibble
