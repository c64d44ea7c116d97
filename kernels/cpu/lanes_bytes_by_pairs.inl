// What products of bytes ask of the lanes (lanes_bytes.inl, lanes_int8.inl), for ISA rows without
// VNNI. Every sum is exact.
#pragma once

#include "kernels/cpu/isa_table.h"

namespace nibble {
namespace {

// The int8 mode: a codebook of signed bytes, a look-up by four nibbles in the bytes of a lane, four
// bytes of x in every lane, their products added to a sum.
using ByteCodebook = ByteTable;
using ByteFactor = SignedBytes;
inline ByteCodebook LoadByteCodebook(const int8_t* codes) { return LoadByteTable(codes); }
inline ByteFactor SetBytes(const int8_t* x) { return SetSignedBytes(x); }
inline I16 DotBytes(I16 sum, I16 codes, const ByteFactor& x) { return DotSigned(sum, codes, x); }
// A block's sums before the first product.
inline I16 StartOfBlock(int32_t) { return SetI(0); }

// LLM.int8(), whose weights may be -128: a line's bytes as 16-bit pairs (k0, k2) and (k1, k3), and
// the same pairs of one row of x, 16 bits a code.
struct Int8Quads {
  I16 even, odd;
};
inline Int8Quads QuadsOfLine(const char* line) {
  const I16 bytes = LoadI(line);
  return {EvenBytes(bytes), OddBytes(bytes)};
}
inline int16_t* CodesOfRow(const Int8Rows& rows, int64_t row) {
  return rows.codes + row * rows.stride;
}
inline Int8Quads QuadsOfRow(const int16_t* x) { return {SetPair(x), SetPair(x + 2)}; }
inline I16 AddProducts(I16 sum, const Int8Quads& w, const Int8Quads& x) {
  return AddI(sum, AddI(DotPairs(w.even, x.even), DotPairs(w.odd, x.odd)));
}
inline void StoreCodes(int16_t* x, I16 q) { StoreQuads(x, q); }
// A row's sums before the first product, from what the sum of its codes left behind.
inline void KeepSumOfRow(const Int8Rows&, int64_t, I16) {}
inline I16 StartOfRow(const Int8Rows&, int64_t) { return SetI(0); }

}  // namespace
}  // namespace nibble
