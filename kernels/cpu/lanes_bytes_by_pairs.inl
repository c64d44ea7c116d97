// What the int8 mode asks of the lanes, for ISA rows that multiply 16-bit pairs and no bytes:
// signed bytes become signed pairs, and every step is exact.
#pragma once

#include "kernels/cpu/isa_table.h"

namespace nibble {
namespace {

using ByteCodebook = ByteTable;
inline ByteCodebook LoadByteCodebook(const int8_t* codes) { return LoadByteTable(codes); }

// Four bytes of x in every lane.
struct ByteFactor {
  I16 even, odd;
};
inline ByteFactor SetBytes(const int8_t* x) {
  int32_t bytes;
  __builtin_memcpy(&bytes, x, sizeof(bytes));
  return {EvenBytes(SetI(bytes)), OddBytes(SetI(bytes))};
}
inline I16 DotBytes(I16 sum, I16 codes, const ByteFactor& x) {
  return AddI(sum, AddI(DotPairs(EvenBytes(codes), x.even), DotPairs(OddBytes(codes), x.odd)));
}
inline I16 StartOfBlock(int32_t) { return SetI(0); }

}  // namespace
}  // namespace nibble
