// The lanes' primitives in AVX2, FMA and F16C: 16 lanes are two registers. Included by the ISA rows
// that are built on it.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/isa_table.h"

namespace nibble {
namespace {

struct V16 {
  __m256 lo, hi;
};
struct I16 {
  __m256i lo, hi;
};
struct M16 {
  __m256 lo, hi;  // a lane's sign bit tells
};
struct Codebook {
  __m256 lo, hi;
};

// Register blocks of a product, panels × rows: kPanelsOfOne × 1, kPanelsOfFew × 2 and 3,
// kPanelsOfMany × 4 … kMaxRows, rows of weights decoded before (0: never). And of attention:
// queries, pages, vectors of values.
constexpr int kPanelsOfOne = 4;
constexpr int kPanelsOfFew = 2;
constexpr int kPanelsOfMany = 2;
constexpr int kMaxRows = 3;
constexpr int kDecodedBlock = 6;
constexpr int kQueryBlock = 2;
constexpr int kPageBlock = 2;
constexpr int kVectorBlock = 2;
// INT8 products: kInt8PanelsOfFew × 1 … 3, kInt8PanelsOfMany × 4 … kInt8MaxRows.
constexpr int kInt8PanelsOfFew = 2;
constexpr int kInt8PanelsOfMany = 1;
constexpr int kInt8MaxRows = 4;
// 4 bits in the int8 mode: kBytePanelsOfOne × 1, kBytePanelsOfFew × 2 and 3, kBytePanelsOfMany × 4
// … kByteMaxRows.
constexpr int kBytePanelsOfOne = 4;
constexpr int kBytePanelsOfFew = 2;
constexpr int kBytePanelsOfMany = 1;
constexpr int kByteMaxRows = 6;

inline V16 Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void Store(float* p, V16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline V16 Add(V16 a, V16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline V16 Sub(V16 a, V16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline V16 Mul(V16 a, V16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline V16 Div(V16 a, V16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline V16 Fma(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline V16 Sqrt(V16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
// a > b ? a : b, and a < b ? a : b: a NaN on either side gives b.
inline V16 Max(V16 a, V16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline V16 Min(V16 a, V16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }

inline float FirstLane(V16 a) { return _mm256_cvtss_f32(a.lo); }
// Lane i + kHalf in lane i, for i < kHalf.
template <int kHalf>
inline V16 UpperLanes(V16 a) {
  if constexpr (kHalf == 8) {
    return {a.hi, a.hi};
  } else if constexpr (kHalf == 4) {
    const __m256 upper = _mm256_permute2f128_ps(a.lo, a.lo, 0x11);
    return {upper, upper};
  } else {
    constexpr int kOrder = kHalf == 2 ? _MM_SHUFFLE(3, 2, 3, 2) : _MM_SHUFFLE(1, 1, 1, 1);
    const __m256 upper = _mm256_permute_ps(a.lo, kOrder);
    return {upper, upper};
  }
}

inline I16 Bits(V16 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
inline V16 FromBits(I16 a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
inline I16 SetI(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I16 LoadI(const void* p) {
  const __m256i* lines = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(lines), _mm256_loadu_si256(lines + 1)};
}
inline void StoreI(void* p, I16 a) {
  __m256i* lines = static_cast<__m256i*>(p);
  _mm256_storeu_si256(lines, a.lo);
  _mm256_storeu_si256(lines + 1, a.hi);
}
inline I16 AddI(I16 a, I16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
inline I16 SubI(I16 a, I16 b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
inline I16 AndI(I16 a, I16 b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
inline I16 XorI(I16 a, I16 b) {
  return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}
template <int kBits>
inline I16 ShiftLeft(I16 a) {
  return {_mm256_slli_epi32(a.lo, kBits), _mm256_slli_epi32(a.hi, kBits)};
}
template <int kBits>
inline I16 ShiftRight(I16 a) {
  return {_mm256_srli_epi32(a.lo, kBits), _mm256_srli_epi32(a.hi, kBits)};
}
template <int kBits>
inline I16 ShiftRightSigned(I16 a) {
  return {_mm256_srai_epi32(a.lo, kBits), _mm256_srai_epi32(a.hi, kBits)};
}

inline __m256i LaneNumbers() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline __m256i FirstOf8(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), LaneNumbers());
}
inline M16 FirstLanes(int64_t n) {
  return {_mm256_castsi256_ps(FirstOf8(n)), _mm256_castsi256_ps(FirstOf8(n - 8))};
}
inline M16 Less(V16 a, V16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
inline M16 Equal(V16 a, V16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
}
inline __m256 NonZero8(__m256i a) {
  const __m256i zero = _mm256_cmpeq_epi32(a, _mm256_setzero_si256());
  return _mm256_castsi256_ps(_mm256_xor_si256(zero, _mm256_set1_epi32(-1)));
}
inline M16 NonZero(I16 a) { return {NonZero8(a.lo), NonZero8(a.hi)}; }
inline uint32_t MaskBits(M16 a) {
  return static_cast<uint32_t>(_mm256_movemask_ps(a.lo)) |
         static_cast<uint32_t>(_mm256_movemask_ps(a.hi)) << 8;
}
inline V16 Choose(M16 mask, V16 yes, V16 no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, mask.lo), _mm256_blendv_ps(no.hi, yes.hi, mask.hi)};
}

// The first n lanes (0 <= n <= 16), the others zero; memory beyond them is not touched.
inline V16 LoadN(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, FirstOf8(n)), _mm256_maskload_ps(p + 8, FirstOf8(n - 8))};
}
inline void StoreN(float* p, V16 a, int64_t n) {
  _mm256_maskstore_ps(p, FirstOf8(n), a.lo);
  _mm256_maskstore_ps(p + 8, FirstOf8(n - 8), a.hi);
}

struct Halves {
  __m128i lo, hi;
};
inline V16 WidenF16(Halves h) { return {_mm256_cvtph_ps(h.lo), _mm256_cvtph_ps(h.hi)}; }
inline __m256 WidenBF16x8(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
inline V16 WidenBF16(Halves h) { return {WidenBF16x8(h.lo), WidenBF16x8(h.hi)}; }
inline Halves NarrowF16(V16 a) {
  constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_cvtps_ph(a.lo, kRound), _mm256_cvtps_ph(a.hi, kRound)};
}
inline __m128i NarrowBF16x8(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
  const __m256i high =
      _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan)), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
inline Halves NarrowBF16(V16 a) { return {NarrowBF16x8(a.lo), NarrowBF16x8(a.hi)}; }

template <LaneType kType>
inline V16 LoadAs(const void* p) {
  if constexpr (kType == kLaneF32) {
    return Load(static_cast<const float*>(p));
  } else {
    const __m128i* lines = static_cast<const __m128i*>(p);
    const Halves h = {_mm_loadu_si128(lines), _mm_loadu_si128(lines + 1)};
    return kType == kLaneF16 ? WidenF16(h) : WidenBF16(h);
  }
}
template <LaneType kType>
inline V16 LoadAsN(const void* p, int64_t n) {
  if constexpr (kType == kLaneF32) {
    return LoadN(static_cast<const float*>(p), n);
  } else {
    uint16_t values[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) values[i] = static_cast<const uint16_t*>(p)[i];
    return LoadAs<kType>(values);
  }
}
template <LaneType kType>
inline void StoreAsN(void* p, V16 a, int64_t n) {
  if constexpr (kType == kLaneF32) {
    StoreN(static_cast<float*>(p), a, n);
  } else {
    const Halves h = kType == kLaneF16 ? NarrowF16(a) : NarrowBF16(a);
    uint16_t values[kLanes];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values), h.lo);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 8), h.hi);
    for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(p)[i] = values[i];
  }
}

inline V16 RoundToF16(V16 a) { return WidenF16(NarrowF16(a)); }

// Bytes 0 and 2 of each lane, and bytes 1 and 3, sign-extended to two 16-bit numbers.
inline __m256i EvenBytes8(__m256i a) { return _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8); }
inline I16 EvenBytes(I16 a) { return {EvenBytes8(a.lo), EvenBytes8(a.hi)}; }
inline I16 OddBytes(I16 a) { return {_mm256_srai_epi16(a.lo, 8), _mm256_srai_epi16(a.hi, 8)}; }
// The pair p[0], p[1] in every lane.
inline I16 SetPair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return SetI(pair);
}
// low·low + high·high of each lane.
inline I16 DotPairs(I16 a, I16 b) {
  return {_mm256_madd_epi16(a.lo, b.lo), _mm256_madd_epi16(a.hi, b.hi)};
}
// 16 numbers of 16 bits, the middle two of every four exchanged.
inline void StoreQuads(int16_t* p, I16 a) {
  constexpr int kOrder = _MM_SHUFFLE(3, 1, 2, 0);
  const __m256i numbers = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), kOrder);
  const __m256i quads = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(numbers, kOrder), kOrder);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), quads);
}
inline V16 ToFloat(I16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

inline __m128i Narrow8(__m256i a) {
  return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}
inline __m128i NarrowBytes(I16 a) { return _mm_packs_epi16(Narrow8(a.lo), Narrow8(a.hi)); }
// 16 numbers as bytes.
inline void StoreBytes(int8_t* p, I16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), NarrowBytes(a));
}
// 16 numbers as bytes, of every 8 first those of even place, then those of odd place.
inline void StoreEvenThenOddBytes(int8_t* p, I16 a) {
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_shuffle_epi8(NarrowBytes(a), order));
}
// 16 bytes, and a look-up in them by four nibbles in the bytes of a lane.
struct ByteTable {
  __m256i v;
};
inline ByteTable LoadByteTable(const int8_t* bytes) {
  return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)))};
}
inline I16 LookupBytes(ByteTable table, I16 nibbles) {
  return {_mm256_shuffle_epi8(table.v, nibbles.lo), _mm256_shuffle_epi8(table.v, nibbles.hi)};
}

// Four signed bytes in every lane; sum + byte · byte, four of each lane, none of them -128. Signs
// go to the second factor, so that the first is unsigned; two products of 127 · 127 fit 16 bits.
struct SignedBytes {
  __m256i bytes, magnitude;
};
inline SignedBytes SetSignedBytes(const int8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof(bytes));
  const __m256i all = _mm256_set1_epi32(bytes);
  return {all, _mm256_abs_epi8(all)};
}
inline __m256i DotSigned8(__m256i sum, __m256i a, const SignedBytes& b) {
  const __m256i pairs = _mm256_maddubs_epi16(b.magnitude, _mm256_sign_epi8(a, b.bytes));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline I16 DotSigned(I16 sum, I16 a, const SignedBytes& b) {
  return {DotSigned8(sum.lo, a.lo, b), DotSigned8(sum.hi, a.hi, b)};
}

inline Codebook LoadCodebook(const float* table) {
  return {_mm256_loadu_ps(table), _mm256_loadu_ps(table + 8)};
}
// A permutation reads the low 3 bits of each lane; bit 3, moved to the sign, picks the half.
inline __m256 Lookup8(Codebook table, __m256i code) {
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.lo, code),
                          _mm256_permutevar8x32_ps(table.hi, code),
                          _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}
// table[low 4 bits of each lane].
inline V16 Lookup(Codebook table, I16 code) {
  return {Lookup8(table, code.lo), Lookup8(table, code.hi)};
}
// Inlined by force: GCC takes a call of it for one without effect.
__attribute__((always_inline)) inline void Prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

}  // namespace
}  // namespace nibble

#include "kernels/cpu/lanes_scales_by_loads.inl"
