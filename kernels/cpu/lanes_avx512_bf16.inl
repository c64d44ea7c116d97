// What the bf16 mode asks of the lanes, in AVX512_BF16: two k of each lane in one instruction.
// Included by the ISA rows that have it.
#pragma once

#include "kernels/cpu/lanes_avx512.inl"

namespace nibble {
namespace {

// Two bf16 in each lane.
struct Bf16Codebook {
  __m512i v;  // the 16 values twice: look-ups have five bits
};
inline Bf16Codebook LoadBf16Codebook(const float* table) {
  const __m256i values = NarrowBF16({_mm512_loadu_ps(table)});
  return {_mm512_broadcast_i64x4(values)};
}
// table[low 4 bits of each half].
inline I16 LookupBf16(Bf16Codebook table, I16 code) {
  return {_mm512_permutexvar_epi16(code.v, table.v)};
}
template <int kBits>
inline I16 ShiftHalvesRight(I16 a) {
  return {_mm512_srli_epi16(a.v, kBits)};
}
// Lane i: low[i] in the lower half, high[i] (0 if null) in the upper.
inline I16 InterleaveHalves(const uint16_t* low, const uint16_t* high) {
  const __m512i lower =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)));
  if (high == nullptr) return {lower};
  const __m512i upper =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
  return {_mm512_or_si512(lower, _mm512_slli_epi32(upper, 16))};
}
// x in bf16 as (x[j], x[j + 4]), j = 0 … 3, of its first and of its last 8; the
// instruction takes subnormals for zero.
inline void StoreBf16Pairs(uint32_t* pairs, V16 x) {
  const __m256i halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v));
  // Within each 128 bits: 0 4 1 5 2 6 3 7.
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs), _mm256_shuffle_epi8(halves, order));
}

inline V16 DotBf16(V16 sum, I16 a, I16 b) {
  return {
      _mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}

}  // namespace
}  // namespace nibble
