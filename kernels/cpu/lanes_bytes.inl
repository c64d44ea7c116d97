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
  const float found = finite ? MaxLanes(largest) : 0;
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
  *sum = -127 * static_cast<int32_t>(SumLanes(ToFloat(total)));
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
  const float largest = finite ? MaxLanes(Magnitude(table)) : __builtin_nanf("");
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

// Lines straight from the packed codes.
class PackedLines {
 public:
  PackedLines(const MatMulTask& task, const ByteCodes& codes)
      : codebook_(LoadByteCodebook(codes.codes)),
        codes_(static_cast<const char*>(task.codes)),
        panels_(task.panels) {}

  inline ByteLine At(int64_t line, int64_t panel) const {
    const char* at = codes_ + (line * panels_ + panel) * kLineBytes;
    const I16 code = LoadI(at);
    Prefetch(at + kPrefetchBytes);
    return {LookupBytes(codebook_, AndI(code, SetI(kNibbles))),
            LookupBytes(codebook_, AndI(ShiftRight<4>(code), SetI(kNibbles)))};
  }
  // The same from line `first` on.
  PackedLines From(int64_t first) const {
    PackedLines lines = *this;
    lines.codes_ += first * panels_ * kLineBytes;
    return lines;
  }

 private:
  ByteCodebook codebook_;
  const char* codes_;
  int64_t panels_;
};

// Lines that were decoded.
struct DecodedLines {
  const char* bytes;  // [lines][panels][even, odd][64]
  int64_t panels;

  inline ByteLine At(int64_t line, int64_t panel) const {
    const char* at = bytes + (line * panels + panel) * 2 * kLineBytes;
    return {LoadI(at), LoadI(at + kLineBytes)};
  }
};

// Some consecutive k of some rows times one super panel.
template <typename Lines>
struct ByteChunk {
  int64_t panels;
  int64_t rows;
  Lines lines;          // from the chunk's first k on
  ByteRows x;           // from its first row on
  int64_t first_block;  // of x
  int64_t blocks;
  const float* scales;  // [blocks][panels][16], of weights
  float* acc;           // [rows][panels][16]
};

// Adds one block of k to acc.
template <int kPanels, int kRows, typename Lines>
inline void AddByteBlock(const ByteChunk<Lines>& chunk, int64_t panel, int64_t row, int64_t b) {
  const int64_t x_stride = chunk.x.stride, block = chunk.x.block;
  const int64_t blocks_of_row = x_stride / block;
  const int64_t first_block = row * blocks_of_row + chunk.first_block + b;
  const int8_t* x = chunk.x.codes + row * x_stride + (chunk.first_block + b) * block;
  I16 t[kPanels][kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const I16 start = StartOfBlock(chunk.x.sums[first_block + r * blocks_of_row]);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) t[p][r] = start;
  }
  const int64_t lines = block / kLineValues;
  for (int64_t line = b * lines; line < (b + 1) * lines; ++line) {
    ByteLine w[kPanels];
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) w[p] = chunk.lines.At(line, panel + p);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const ByteFactor even = SetBytes(x + r * x_stride);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) t[p][r] = DotBytes(t[p][r], w[p].even, even);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const ByteFactor odd = SetBytes(x + r * x_stride + kLineValues / 2);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) t[p][r] = DotBytes(t[p][r], w[p].odd, odd);
    }
    x += kLineValues;
  }
  const float* scales = chunk.scales + (b * chunk.panels + panel) * kLanes;
  float* acc = chunk.acc + (row * chunk.panels + panel) * kLanes;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const V16 x_scale = Set1(chunk.x.scales[first_block + r * blocks_of_row]);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      float* at = acc + (r * chunk.panels + p) * kLanes;
      const V16 scale = Mul(x_scale, Load(scales + p * kLanes));
      Store(at, Fma(ToFloat(t[p][r]), scale, Load(at)));
    }
  }
}

struct ByteKind {
  static constexpr int kMaxRows = kByteMaxRows;
  static constexpr int PanelsOf(int rows) {
    return rows == 1 ? kBytePanelsOfOne : rows <= 3 ? kBytePanelsOfFew : kBytePanelsOfMany;
  }
  template <int kPanels, int kRows, typename Lines>
  static void Block(const ByteChunk<Lines>& chunk, int64_t panel, int64_t row) {
    for (int64_t b = 0; b < chunk.blocks; ++b) AddByteBlock<kPanels, kRows>(chunk, panel, row, b);
  }
};

// Weight scales of the blocks of x that lie in a chunk, asked for ascending.
class BlockScales {
 public:
  explicit BlockScales(const MatMulTask& task) : task_(task), scales_(task, 0) {}

  // out: [blocks][panels][16].
  void Read(int64_t first_block, int64_t blocks, float* out) {
    const int64_t blocks_of_group = task_.group_size / task_.bytes.block;
    for (int64_t b = first_block; b < first_block + blocks; ++b) {
      for (int64_t p = 0; p < task_.panels; ++p, out += kLanes) {
        Store(out, scales_.At(p, b / blocks_of_group));
      }
    }
  }

 private:
  const MatMulTask& task_;
  PanelScales scales_;
};

constexpr int64_t kByteChunk = 256;  // k
constexpr int64_t kCrowdRows = 128;  // that share what was decoded
constexpr int64_t kMaxChunkBlocks = kByteChunk / kShortByteBlock;

// bytes: [lines][panels][even, odd][64].
inline void DecodeLines(const PackedLines& lines, int64_t panels, int64_t count, char* bytes) {
  for (int64_t line = 0; line < count; ++line) {
    for (int64_t p = 0; p < panels; ++p, bytes += 2 * kLineBytes) {
      const ByteLine w = lines.At(line, p);
      StoreI(bytes, w.even);
      StoreI(bytes + kLineBytes, w.odd);
    }
  }
}

// At most kRows rows from `first` on: few, whose lines are decoded as they are multiplied, or a
// crowd, for which they are decoded once.
template <int64_t kRows>
void FourBitInt8Rows(const MatMulTask& task, int64_t first, int64_t rows) {
  constexpr bool kDecoded = kRows > kByteMaxRows;
  alignas(kLineBytes) float acc[kRows * kMaxPanels * kLanes];
  alignas(kLineBytes) float scales[kMaxChunkBlocks * kMaxPanels * kLanes];
  alignas(kLineBytes) char bytes[kDecoded ? kByteChunk / 8 * kMaxPanels * 2 * kLineBytes : 1];
  for (int64_t i = 0; i < rows * task.panels; ++i) Store(acc + i * kLanes, Zero());
  const ByteRows x = {task.bytes.codes + first * task.bytes.stride,
                      task.bytes.scales + first * (task.bytes.stride / task.bytes.block),
                      task.bytes.sums + first * (task.bytes.stride / task.bytes.block),
                      task.bytes.stride, task.bytes.block};
  const ByteCodes codes = ByteCodesOf(task.codebook);
  const PackedLines packed(task, codes);
  BlockScales block_scales(task);
  for (int64_t k = 0; k < task.k; k += kByteChunk) {
    const int64_t count = task.k - k < kByteChunk ? task.k - k : kByteChunk;
    const int64_t first_block = k / x.block, blocks = count / x.block;
    const PackedLines lines = packed.From(k / kLineValues);
    block_scales.Read(first_block, blocks, scales);
    if constexpr (kDecoded) {
      DecodeLines(lines, task.panels, count / kLineValues, bytes);
      const ByteChunk<DecodedLines> chunk = {
          task.panels, rows, {bytes, task.panels}, x, first_block, blocks, scales, acc};
      Product<ByteKind>(&chunk);
    } else {
      const ByteChunk<PackedLines> chunk = {task.panels, rows,   lines,  x,
                                            first_block, blocks, scales, acc};
      Product<ByteKind>(&chunk);
    }
  }
  for (int64_t i = 0; i < rows * task.panels; ++i) {
    const V16 sum = Mul(Load(acc + i * kLanes), Set1(codes.largest));
    Finish(task, i % task.panels, first + i / task.panels, sum);
  }
}

void FourBitInt8(const MatMulTask* task) {
  if (task->rows <= kByteMaxRows) return FourBitInt8Rows<kByteMaxRows>(*task, 0, task->rows);
  const int64_t crowds = (task->rows + kCrowdRows - 1) / kCrowdRows;
  for (int64_t i = 0; i < crowds; ++i) {
    const int64_t first = i * task->rows / crowds;
    FourBitInt8Rows<kCrowdRows>(*task, first, (i + 1) * task->rows / crowds - first);
  }
}

}  // namespace
}  // namespace nibble
