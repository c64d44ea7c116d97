// What products of bytes ask of the lanes (lanes_bytes.inl, lanes_int8.inl), for ISA rows with
// VNNI: DotUnsigned multiplies unsigned bytes by signed ones. Weights are made unsigned by a number
// added to each; sums begin with minus that number times the sum of x, and are exact.
#pragma once

#include "kernels/cpu/lanes_math.inl"

namespace nibble {
namespace {

// The int8 mode: a codebook of bytes, a look-up by four nibbles in the bytes of a lane, four bytes
// of x in every lane, their products added to a sum.
using ByteCodebook = ByteTable;
using ByteFactor = I16;
inline ByteCodebook LoadByteCodebook(const int8_t* codes) {
  int8_t biased[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    biased[i] = static_cast<int8_t>(static_cast<uint8_t>(codes[i] + 127));
  }
  return LoadByteTable(biased);
}
inline I16 SetBytes(const int8_t* x) {
  int32_t bytes;
  __builtin_memcpy(&bytes, x, sizeof(bytes));
  return SetI(bytes);
}
inline I16 DotBytes(I16 sum, I16 codes, I16 x) { return DotUnsigned(sum, codes, x); }
// A block's sums before the first product; sum is -127 · the sum of its x.
inline I16 StartOfBlock(int32_t sum) { return SetI(sum); }

// LLM.int8(): a line's bytes plus 128, and the codes of one row of x, a byte each; where 16 bits
// each would have lain there is room behind them for the sum.
inline I16 QuadsOfLine(const char* line) {
  return XorI(LoadI(line), SetI(static_cast<int32_t>(0x80808080u)));
}
inline int8_t* CodesOfRow(const Int8Rows& rows, int64_t row) {
  return reinterpret_cast<int8_t*>(rows.codes + row * rows.stride);
}
inline I16 QuadsOfRow(const int8_t* x) { return SetBytes(x); }
inline I16 AddProducts(I16 sum, I16 w, I16 x) { return DotUnsigned(sum, w, x); }
inline void StoreCodes(int8_t* x, I16 q) { StoreBytes(x, q); }
// A row's sums before the first product, from what the sum of its codes left behind.
inline void KeepSumOfRow(const Int8Rows& rows, int64_t row, I16 total) {
  const int32_t sum = -128 * static_cast<int32_t>(SumLanes(ToFloat(total)));  // below 2^24
  __builtin_memcpy(CodesOfRow(rows, row) + rows.stride, &sum, sizeof(sum));
}
inline I16 StartOfRow(const Int8Rows& rows, int64_t row) {
  int32_t sum;
  __builtin_memcpy(&sum, CodesOfRow(rows, row) + rows.stride, sizeof(sum));
  return SetI(sum);
}

}  // namespace
}  // namespace nibble
