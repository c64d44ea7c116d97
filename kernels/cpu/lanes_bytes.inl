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
constexpr int64_t kQuad = 4;  // k values that one instruction multiplies

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

// Some consecutive k of some rows times one super panel.
struct ByteChunk {
  int64_t panels;
  int64_t rows;
  const char* codes;  // from the chunk's first k on
  ByteCodebook codebook;
  ByteRows x;           // from its first row on
  int64_t first_block;  // of x
  int64_t blocks;
  const float* scales;  // [blocks][panels][16], of weights
  float* acc;           // [rows][panels][16]
};

// A line of a panel is two quads of bytes: k 0, 2, 4, 6 of each row, and k 1, 3, 5, 7. It is read
// once for either, which leaves the registers to the sums. A narrow block skips the other panels'
// lines, and looks as much further ahead.
template <int kPanels>
inline void EvenQuads(const ByteChunk& chunk, const char* codes, I16 (&w)[kPanels]) {
  const int64_t ahead = kPrefetchBytes / kPanels * chunk.panels;
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p) {
    const char* at = codes + p * kLineBytes;
    Prefetch(at + ahead);
    w[p] = LookupBytes(chunk.codebook, AndI(LoadI(at), SetI(kNibbles)));
  }
}
template <int kPanels>
inline void OddQuads(const ByteChunk& chunk, const char* codes, I16 (&w)[kPanels]) {
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p) {
    const I16 line = LoadI(codes + p * kLineBytes);
    w[p] = LookupBytes(chunk.codebook, AndI(ShiftRight<4>(line), SetI(kNibbles)));
  }
}

// t[p][r] += four k of panel p times those of row r.
template <int kPanels, int kRows>
inline void AddQuads(const I16 (&w)[kPanels], const int8_t* x, int64_t x_stride,
                     I16 (&t)[kPanels][kRows]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const ByteFactor xr = SetBytes(x + r * x_stride);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) t[p][r] = DotBytes(t[p][r], w[p], xr);
  }
}

// Adds block b of the chunk.
template <int kPanels, int kRows>
inline void AddByteBlock(const ByteChunk& chunk, int64_t panel, int64_t row, int64_t b,
                         V16 (&acc)[kPanels][kRows]) {
  const int64_t x_stride = chunk.x.stride, block = chunk.x.block;
  const int64_t blocks_of_row = x_stride / block;
  const int64_t first_block = row * blocks_of_row + chunk.first_block + b;
  const int8_t* x = chunk.x.codes + row * x_stride + (chunk.first_block + b) * block;
  const int64_t line_stride = chunk.panels * kLineBytes;
  const char* codes = chunk.codes + b * (block / kLineValues) * line_stride + panel * kLineBytes;
  I16 t[kPanels][kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const I16 start = StartOfBlock(chunk.x.sums[first_block + r * blocks_of_row]);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) t[p][r] = start;
  }
  for (int64_t line = 0; line < block / kLineValues; ++line, x += kLineValues) {
    I16 w[kPanels];
    EvenQuads(chunk, codes, w);
    AddQuads(w, x, x_stride, t);
    OddQuads(chunk, codes, w);
    AddQuads(w, x + kQuad, x_stride, t);
    codes += line_stride;
  }
  const float* scales = chunk.scales + (b * chunk.panels + panel) * kLanes;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const V16 x_scale = Set1(chunk.x.scales[first_block + r * blocks_of_row]);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      const V16 scale = Mul(x_scale, Load(scales + p * kLanes));
      acc[p][r] = Fma(ToFloat(t[p][r]), scale, acc[p][r]);
    }
  }
}

// acc stays in registers through a chunk: in memory it would wait for itself at every block.
struct FourBitInt8Kind {
  static constexpr int kMaxRows = kByteMaxRows;
  static constexpr int PanelsOf(int rows) {
    return rows == 1 ? kBytePanelsOfOne : rows <= 3 ? kBytePanelsOfFew : kBytePanelsOfMany;
  }
  template <int kPanels, int kRows>
  [[gnu::noinline]] static void Block(const ByteChunk& chunk, int64_t panel, int64_t row) {
    float* const at = chunk.acc + (row * chunk.panels + panel) * kLanes;
    V16 acc[kPanels][kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) acc[p][r] = Load(at + (r * chunk.panels + p) * kLanes);
    }
    for (int64_t b = 0; b < chunk.blocks; ++b) {
      AddByteBlock<kPanels, kRows>(chunk, panel, row, b, acc);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) Store(at + (r * chunk.panels + p) * kLanes, acc[p][r]);
    }
  }
};

// Many rows, this many at a time, go through a panel in few chunks of k. Few rows go through all
// panels block by block, as memory delivers them.
constexpr int64_t kManyRows = 128;
constexpr int64_t kManyRowsChunk = 4096;

// The weight scales of `blocks` blocks of x from `first` on. out: [blocks][panels][16].
inline void ReadBlockScales(const MatMulTask& task, int64_t first, int64_t blocks,
                            PanelScales* scales, float* out) {
  const int64_t blocks_of_group = task.group_size / task.bytes.block;
  for (int64_t b = first; b < first + blocks; ++b) {
    scales->Read(b / blocks_of_group, 0, task.panels);
    for (int64_t p = 0; p < task.panels; ++p, out += kLanes) Store(out, scales->At(p));
  }
}

// Rows [first, first + rows), at most kRows, kChunk values of k at a time.
template <int64_t kRows, int64_t kChunk>
void FourBitInt8Rows(const MatMulTask& task, int64_t first, int64_t rows) {
  constexpr int64_t kBlocks = kChunk / kShortByteBlock;
  alignas(kLineBytes) float acc[kRows * kMaxPanels * kLanes];
  alignas(kLineBytes) float scales[kBlocks * kMaxPanels * kLanes];
  for (int64_t i = 0; i < rows * task.panels; ++i) Store(acc + i * kLanes, Zero());
  const ByteRows& x = task.bytes;
  const int64_t blocks_of_row = x.stride / x.block;
  const ByteCodes codes = ByteCodesOf(task.codebook);
  PanelScales panel_scales(task, 0);
  ByteChunk chunk = {task.panels,
                     rows,
                     static_cast<const char*>(task.codes),
                     LoadByteCodebook(codes.codes),
                     {x.codes + first * x.stride, x.scales + first * blocks_of_row,
                      x.sums + first * blocks_of_row, x.stride, x.block},
                     0,
                     0,
                     scales,
                     acc};
  for (int64_t k = 0; k < task.k; k += kChunk) {
    const int64_t count = task.k - k < kChunk ? task.k - k : kChunk;
    chunk.first_block = k / x.block;
    chunk.blocks = count / x.block;
    ReadBlockScales(task, chunk.first_block, chunk.blocks, &panel_scales, scales);
    Product<FourBitInt8Kind>(&chunk);
    chunk.codes += count / kLineValues * task.panels * kLineBytes;
  }
  for (int64_t p = 0; p < task.panels; ++p) {
    const PanelOut out(task, p);
    for (int64_t r = 0; r < rows; ++r) {
      const V16 sum = Load(acc + (r * task.panels + p) * kLanes);
      out.Finish(first + r, Mul(sum, Set1(codes.largest)));
    }
  }
}

void FourBitInt8(const MatMulTask* task) {
  if (task->rows <= kByteMaxRows) {
    return FourBitInt8Rows<kByteMaxRows, kByteBlock>(*task, 0, task->rows);
  }
  for (int64_t first = 0; first < task->rows; first += kManyRows) {
    const int64_t left = task->rows - first;
    FourBitInt8Rows<kManyRows, kManyRowsChunk>(*task, first, left < kManyRows ? left : kManyRows);
  }
}

}  // namespace
}  // namespace nibble
