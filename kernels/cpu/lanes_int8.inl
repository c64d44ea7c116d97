// Products with INT8 weights as LLM.int8() defines them (kernels/backend.h): rows of x become 8-bit
// codes once a call, integer sums are exact in any order, and what is no integer has one order.
#pragma once

#include "kernels/cpu/lanes_bytes.inl"

namespace nibble {
namespace {

// x rounded to fp16, or x itself where fp16 has no finite value for it.
inline V16 RoundedInput(V16 x) {
  const V16 half = RoundToF16(x);
  return Choose(Less(Magnitude(half), Set1(kInfinity)), half, x);
}

// Outliers are what is not below the limit: a NaN always is one.
void Int8Input(const float* x, int64_t k, float threshold, int64_t row, const Int8Rows* rows) {
  const V16 limit = Set1(threshold > 0 ? threshold : kInfinity);
  uint64_t* outliers = rows->outliers + row * (rows->stride / kMaskBits);
  V16 largest = Zero();
  int32_t count = 0;
  for (int64_t i = 0; i < rows->stride; i += kMaskBits) {
    uint64_t mask = 0;
    for (int64_t j = i; j < i + kMaskBits && j < k; j += kLanes) {
      const V16 magnitude = Magnitude(RoundedInput(LoadN(x + j, AtMostLanes(k - j))));
      const M16 inside = Less(magnitude, limit);
      mask |= static_cast<uint64_t>(MaskBits(inside) ^ 0xffffu) << (j - i);
      largest = Max(Choose(inside, magnitude, Zero()), largest);
    }
    outliers[i / kMaskBits] = mask;
    for (; mask != 0; mask &= mask - 1) ++count;
  }
  const float stat = MaxLanes(largest);
  const V16 factor = Set1(stat > 0 ? 127.0f / stat : 0.0f);
  auto* codes = CodesOfRow(*rows, row);
  I16 total = SetI(0);
  for (int64_t i = 0; i < k; i += kLanes) {
    const V16 a = RoundedInput(LoadN(x + i, AtMostLanes(k - i)));
    const V16 kept = Choose(Less(Magnitude(a), limit), a, Zero());
    const V16 shifted = Add(Mul(kept, factor), Set1(kRounder));
    const I16 q = SubI(Bits(shifted), Bits(Set1(kRounder)));
    StoreCodes(codes + i, q);
    total = AddI(total, q);
  }
  KeepSumOfRow(*rows, row, total);
  rows->stats[row] = stat;
  rows->counts[row] = count;
}

// Byte `index` of each lane, as a signed number.
inline I16 ByteOf(I16 line, int64_t index) {
  switch (index) {
    case 0:
      return ShiftRightSigned<24>(ShiftLeft<24>(line));
    case 1:
      return ShiftRightSigned<24>(ShiftLeft<16>(line));
    case 2:
      return ShiftRightSigned<24>(ShiftLeft<8>(line));
    default:
      return ShiftRightSigned<24>(line);
  }
}

// out += a·((code·absmax)·(1/127)) for each outlier a of the row, k ascending, the last step fused.
template <int kPanels>
void AddOutliers(const MatMulTask& task, int64_t first_panel, int64_t row, V16 (&out)[kPanels]) {
  const float* x = task.x + row * task.x_stride;
  const int64_t num_masks = task.int8.stride / kMaskBits;
  const uint64_t* outliers = task.int8.outliers + row * num_masks;
  const float* absmax = static_cast<const float*>(task.scales) + first_panel * kLanes;
  const char* codes = static_cast<const char*>(task.codes) + first_panel * kLineBytes;
  for (int64_t i = 0; i < num_masks; ++i) {
    for (uint64_t rest = outliers[i]; rest != 0; rest &= rest - 1) {
      const int64_t k = i * kMaskBits + __builtin_ctzll(rest);
      const char* line = codes + k / kQuad * task.panels * kLineBytes;
      const V16 ak = RoundedInput(Set1(x[k]));
      for (int p = 0; p < kPanels; ++p) {
        const V16 code = ToFloat(ByteOf(LoadI(line + p * kLineBytes), k % kQuad));
        const V16 scaled = Mul(code, Load(absmax + p * kLanes));
        out[p] = Fma(Mul(scaled, Set1(1.0f / 127)), ak, out[p]);
      }
    }
  }
}

// out = (Σ·stat)·absmax · (1/127²) + bias, the last two steps fused; then outliers and the old
// value.
template <int kPanels>
inline void FinishInt8(const MatMulTask& task, int64_t first_panel, int64_t row,
                       const V16 (&sums)[kPanels]) {
  const float* absmax = static_cast<const float*>(task.scales) + first_panel * kLanes;
  const V16 stat = Set1(task.int8.stats[row]);
  V16 out[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    const V16 bias = task.bias.data != nullptr ? BiasOf(task, first_panel + p) : Zero();
    const V16 scaled = Mul(Mul(sums[p], stat), Load(absmax + p * kLanes));
    out[p] = Fma(scaled, Set1(1.0f / (127 * 127)), bias);
  }
  if (task.int8.counts[row] != 0) AddOutliers<kPanels>(task, first_panel, row, out);
  for (int p = 0; p < kPanels; ++p) {
    const int64_t n = task.first_n + (first_panel + p) * kLanes;
    StoreOut(task, n, AtMostLanes(task.n - n), row, out[p]);
  }
}

// kPanels panels from first_panel, kRows rows of x from first_row.
template <int kPanels, int kRows>
void Int8Block(const MatMulTask& task, int64_t first_panel, int64_t first_row) {
  const int64_t line_stride = task.panels * kLineBytes;
  // A narrow block skips the other panels' lines, and looks as much further ahead.
  const int64_t prefetch_bytes = kPrefetchBytes / (kPanels * kLineBytes) * line_stride;
  const char* codes = static_cast<const char*>(task.codes) + first_panel * kLineBytes;
  const auto* x = CodesOfRow(task.int8, first_row);
  const int64_t x_stride = CodesOfRow(task.int8, 1) - CodesOfRow(task.int8, 0);
  I16 sums[kPanels][kRows];
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) sums[p][r] = StartOfRow(task.int8, first_row + r);
  }
  const auto line = [&](int p) {
    const char* at = codes + p * kLineBytes;
    Prefetch(at + prefetch_bytes);
    return QuadsOfLine(at);
  };
  for (int64_t k = 0; k < task.k; k += kQuad) {
    if constexpr (kRows < kPanels) {  // the fewer of the two wait in registers
      decltype(QuadsOfRow(x)) xs[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) xs[r] = QuadsOfRow(x + r * x_stride);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        const auto w = line(p);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) sums[p][r] = AddProducts(sums[p][r], w, xs[r]);
      }
    } else {
      decltype(QuadsOfLine(codes)) w[kPanels];
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) w[p] = line(p);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto xr = QuadsOfRow(x + r * x_stride);
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) sums[p][r] = AddProducts(sums[p][r], w[p], xr);
      }
    }
    codes += line_stride;
    x += kQuad;
  }
  for (int r = 0; r < kRows; ++r) {
    V16 row[kPanels];
    for (int p = 0; p < kPanels; ++p) row[p] = ToFloat(sums[p][r]);
    FinishInt8<kPanels>(task, first_panel, first_row + r, row);
  }
}

struct Int8Kind {
  static constexpr int kMaxRows = kInt8MaxRows;
  static constexpr int PanelsOf(int rows) {
    return rows <= 3 ? kInt8PanelsOfFew : kInt8PanelsOfMany;
  }
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    Int8Block<kPanels, kRows>(task, panel, row);
  }
};

void Int8(const MatMulTask* task) { Product<Int8Kind>(task); }

}  // namespace
}  // namespace nibble
