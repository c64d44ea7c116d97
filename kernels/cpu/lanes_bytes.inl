// Products of the int8 mode: 4-bit weights as signed bytes times x as signed bytes, sums of a block
// of k exact in integers, scales and what they multiply in fp32. Weights lie as in the fp32 mode
// (packing.h), and the order of additions is again the same for any number of x rows.
//
//   block   := 64 consecutive k of a row of x, 32 if weights have groups of 32
//   stat    := the largest |x| of the block, 0 if it is below 2^-100
//   q       := rint_even(x · (127 / stat)), 0 if stat is 0; both steps rounded to fp32
//   x scale := stat / 127²; NaN if the block holds a NaN or an infinity
//   c       := rint_even(127 · (code / M)), M the largest magnitude of the codebook (1 but for a
//              matrix with own tables), 0 if M is 0; NaN for M if a code is not finite
//   acc     := fma(float(Σ q·c), x scale · weight scale, acc), blocks ascending from 0
//   out     := acc · M, then bias and the old value as in every mode
//
// What multiplies bytes (DotBytes, and in which form LookupBytes gives c) is the ISA row's own.
#pragma once

#include "kernels/cpu/lanes_matmul.inl"

namespace nibble {
namespace {

constexpr float kSmallestStat = 0x1p-100f;
constexpr int32_t kNibbles = 0x0f0f0f0f;

// Up to 16 values of x: [count], zeros beyond.
inline V16 LoadUpTo(const float* x, int64_t count) {
  return count > 0 ? LoadN(x, AtMostLanes(count)) : Zero();
}

// One block of a row: x: [count], zeros beyond.
inline void ByteInputBlock(const float* x, int64_t count, int64_t block, int8_t* codes,
                           float* scale, int32_t* sum) {
  V16 largest = Zero();
  bool finite = true;
  for (int64_t i = 0; i < block; i += kLanes) {
    const V16 magnitude = Magnitude(LoadUpTo(x + i, count - i));
    finite = finite && MaskBits(Less(magnitude, Set1(kInfinity))) == 0xffffu;
    largest = Max(magnitude, largest);
  }
  const float found = finite ? LargestLane(largest) : 0;
  const float stat = found < kSmallestStat ? 0 : found;
  const V16 factor = Set1(stat > 0 ? 127.0f / stat : 0.0f);
  I16 total = SetI(0);
  for (int64_t i = 0; i < block; i += kLanes) {
    const V16 a = finite ? LoadUpTo(x + i, count - i) : Zero();
    const V16 shifted = Add(Mul(a, factor), Set1(kRounder));
    const I16 q = SubI(Bits(shifted), Bits(Set1(kRounder)));
    StoreEvenThenOddBytes(codes + i, q);
    total = AddI(total, q);
  }
  *scale = finite ? stat / (127.0f * 127.0f) : __builtin_nanf("");
  *sum = -127 * AddLanes(total);
}

// Row `row` of *rows from x: [k].
void ByteInput(const float* x, int64_t k, int64_t row, const ByteRows* rows) {
  const int64_t blocks = rows->stride / rows->block;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * rows->block;
    ByteInputBlock(x + first, k - first, rows->block, rows->codes + row * rows->stride + first,
                   rows->scales + row * blocks + b, rows->sums + row * blocks + b);
  }
}

// A codebook in signed bytes.
struct ByteCodes {
  int8_t codes[kLanes];
  float largest;  // M
};
inline ByteCodes ByteCodesOf(const float* codebook) {
  const V16 table = Load(codebook);
  const bool finite = MaskBits(Less(Magnitude(table), Set1(kInfinity))) == 0xffffu;
  const float largest = finite ? LargestLane(Magnitude(table)) : __builtin_nanf("");
  const V16 ratio = largest > 0 ? Div(table, Set1(largest)) : Zero();
  const V16 shifted = Add(Mul(ratio, Set1(127.0f)), Set1(kRounder));
  int32_t numbers[kLanes];
  StoreI(numbers, SubI(Bits(shifted), Bits(Set1(kRounder))));
  ByteCodes result;
  for (int64_t i = 0; i < kLanes; ++i) result.codes[i] = static_cast<int8_t>(numbers[i]);
  result.largest = largest;
  return result;
}

// The codes of 8 k of a panel as bytes: k 0, 2, 4, 6 of each row, and k 1, 3, 5, 7.
struct ByteLine {
  I16 even, odd;
};

// Lines of codes, `stride` bytes from one to the next, panels side by side.
class PackedLines {
 public:
  PackedLines(const MatMulTask& task, int64_t first_panel, const ByteCodes& codes)
      : codebook_(LoadByteCodebook(codes.codes)),
        codes_(static_cast<const char*>(task.codes) + first_panel * kLineBytes),
        stride_(task.panels * kLineBytes) {}

  inline ByteLine At(int64_t line, int64_t panel) const {
    const char* at = codes_ + line * stride_ + panel * kLineBytes;
    const I16 code = LoadI(at);
    Prefetch(at + kPrefetchBytes);
    return {LookupBytes(codebook_, AndI(code, SetI(kNibbles))),
            LookupBytes(codebook_, AndI(ShiftRight<4>(code), SetI(kNibbles)))};
  }

 private:
  const ByteCodebook codebook_;
  const char* const codes_;
  const int64_t stride_;
};

// The same lines decoded, from line `first` on.
template <int kPanels>
struct DecodedLines {
  const char* bytes;  // [lines][kPanels][even, odd][64]

  inline ByteLine At(int64_t line, int64_t panel) const {
    const char* at = bytes + (line * kPanels + panel) * 2 * kLineBytes;
    return {LoadI(at), LoadI(at + kLineBytes)};
  }
};

// Adds block `b` of rows first_row … to acc; its first line is `line` of `lines`.
template <int kPanels, int kRows, typename Lines>
inline void AddByteBlock(const Lines& lines, int64_t line, const ByteRows& rows, int64_t first_row,
                         int64_t b, const V16 (&scales)[kPanels], V16 (&acc)[kPanels][kRows]) {
  const int64_t blocks = rows.stride / rows.block;
  const int64_t first_block = first_row * blocks + b;
  const int8_t* x = rows.codes + first_row * rows.stride + b * rows.block;
  I16 t[kPanels][kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const I16 start = StartOfBlock(rows.sums[first_block + r * blocks]);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) t[p][r] = start;
  }
  for (int64_t end = line + rows.block / kLineValues; line < end; ++line) {
    ByteLine w[kPanels];
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) w[p] = lines.At(line, p);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const ByteFactor even = SetBytes(x + r * rows.stride);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) t[p][r] = DotBytes(t[p][r], w[p].even, even);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const ByteFactor odd = SetBytes(x + r * rows.stride + kLineValues / 2);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) t[p][r] = DotBytes(t[p][r], w[p].odd, odd);
    }
    x += kLineValues;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const V16 x_scale = Set1(rows.scales[first_block + r * blocks]);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      acc[p][r] = Fma(ToFloat(t[p][r]), Mul(x_scale, scales[p]), acc[p][r]);
    }
  }
}

// kPanels panels from first_panel, kRows rows of x from first_row.
template <int kPanels, int kRows>
void FourBitInt8Block(const MatMulTask& task, int64_t first_panel, int64_t first_row) {
  const ByteCodes codes = ByteCodesOf(task.codebook);
  const PackedLines lines(task, first_panel, codes);
  PanelScales panel_scales(task, first_panel);
  V16 acc[kPanels][kRows];
  for (auto& panel : acc) {
    for (V16& a : panel) a = Zero();
  }
  const int64_t block_lines = task.bytes.block / kLineValues;
  int64_t b = 0;
  for (int64_t g = 0; g < task.k / task.group_size; ++g) {
    V16 scales[kPanels];
    for (int p = 0; p < kPanels; ++p) scales[p] = panel_scales.At(p, g);
    for (const int64_t end = (g + 1) * task.group_size / task.bytes.block; b < end; ++b) {
      AddByteBlock(lines, b * block_lines, task.bytes, first_row, b, scales, acc);
    }
  }
  const V16 largest = Set1(codes.largest);
  for (int p = 0; p < kPanels; ++p) {
    for (int r = 0; r < kRows; ++r) {
      Finish(task, first_panel + p, first_row + r, Mul(acc[p][r], largest));
    }
  }
}

struct FourBitInt8Kind {
  static constexpr int kMaxRows = kByteMaxRows;
  static constexpr int PanelsOf(int rows) {
    return rows == 1 ? kBytePanelsOfOne : rows <= 3 ? kBytePanelsOfFew : kBytePanelsOfMany;
  }
  template <int kPanels, int kRows>
  static void Block(const MatMulTask& task, int64_t panel, int64_t row) {
    FourBitInt8Block<kPanels, kRows>(task, panel, row);
  }
};

void FourBitInt8(const MatMulTask* task) { Product<FourBitInt8Kind>(task); }

}  // namespace
}  // namespace nibble
