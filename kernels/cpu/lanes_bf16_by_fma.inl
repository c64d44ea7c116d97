// What the bf16 mode asks of the lanes, for ISA rows without bf16 instructions of their own. Sums
// that become subnormal are kept here, where AVX512_BF16 makes them zero.
#pragma once

#include "kernels/cpu/isa_table.h"

namespace nibble {
namespace {

constexpr int32_t kUpperHalf = static_cast<int32_t>(0xffff0000u);

inline I16 OrI(I16 a, I16 b) { return AddI(a, b); }  // no bit is in both

struct Bf16Codebook {
  float values[kLanes];  // rounded to bf16
};
inline Bf16Codebook LoadBf16Codebook(const float* table) {
  Bf16Codebook codebook;
  uint16_t halves[kLanes];
  StoreAsN<kLaneBF16>(halves, Load(table), kLanes);
  Store(codebook.values, LoadAs<kLaneBF16>(halves));
  return codebook;
}
// table[low 4 bits of each half].
inline I16 LookupBf16(const Bf16Codebook& table, I16 code) {
  const Codebook values = LoadCodebook(table.values);
  const I16 lower = Bits(Lookup(values, code));
  const I16 upper = Bits(Lookup(values, ShiftRight<16>(code)));
  return OrI(ShiftRight<16>(lower), upper);
}
template <int kBits>
inline I16 ShiftHalvesRight(I16 a) {
  constexpr uint32_t kKept = 0xffffu >> kBits;
  return AndI(ShiftRight<kBits>(a), SetI(static_cast<int32_t>(kKept << 16 | kKept)));
}
// Lane i: low[i] in the lower half, high[i] (0 if null) in the upper.
inline I16 InterleaveHalves(const uint16_t* low, const uint16_t* high) {
  const I16 lower = ShiftRight<16>(Bits(LoadAs<kLaneBF16>(low)));
  return high == nullptr ? lower : OrI(lower, Bits(LoadAs<kLaneBF16>(high)));
}
// x in bf16 as (x[j], x[j + 4]), j = 0 … 3, of its first and of its last 8; subnormals are zero.
inline void StoreBf16Pairs(uint32_t* pairs, V16 x) {
  const V16 magnitude = FromBits(AndI(Bits(x), SetI(INT32_MAX)));
  uint16_t halves[kLanes];
  StoreAsN<kLaneBF16>(halves, Choose(Less(magnitude, Set1(0x1p-126f)), Set1(0), x), kLanes);
  for (int64_t i = 0; i < kLanes / 2; ++i) {
    const int64_t at = i / 4 * 8 + i % 4;
    pairs[i] = halves[at] | static_cast<uint32_t>(halves[at + 4]) << 16;
  }
}
inline V16 DotBf16(V16 sum, I16 a, I16 b) {
  const I16 upper = SetI(kUpperHalf);
  sum = Fma(FromBits(AndI(a, upper)), FromBits(AndI(b, upper)), sum);
  return Fma(FromBits(ShiftLeft<16>(a)), FromBits(ShiftLeft<16>(b)), sum);
}

}  // namespace
}  // namespace nibble
