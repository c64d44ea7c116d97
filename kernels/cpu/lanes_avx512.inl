// The lanes' primitives in AVX-512 (F, BW, DQ, VL): 16 lanes are one register. Included by the ISA
// rows that are built on it, after <immintrin.h>.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/isa_table.h"

namespace nibble {
namespace {

struct V16 {
  __m512 v;
};
struct I16 {
  __m512i v;
};
struct M16 {
  __mmask16 m;
};
struct Codebook {
  __m512 v;
};

// Register blocks of a product, panels × rows: kPanelsOfOne × 1, kPanelsOfFew × 2 and 3,
// kPanelsOfMany × 4 … kMaxRows, rows of weights decoded before (0: never). And of attention:
// queries, pages, vectors of values.
constexpr int kPanelsOfOne = 8;
constexpr int kPanelsOfFew = 4;
constexpr int kPanelsOfMany = 2;
constexpr int kMaxRows = 12;
constexpr int kDecodedBlock = 0;
constexpr int kQueryBlock = 4;
constexpr int kPageBlock = 4;
constexpr int kVectorBlock = 4;
// INT8 products: kInt8PanelsOfFew × 1 … 3, kInt8PanelsOfMany × 4 … kInt8MaxRows.
constexpr int kInt8PanelsOfFew = 8;
constexpr int kInt8PanelsOfMany = 2;
constexpr int kInt8MaxRows = 12;
// 4 bits in the int8 mode: kBytePanelsOfOne × 1, kBytePanelsOfFew × 2 and 3, kBytePanelsOfMany × 4
// … kByteMaxRows.
constexpr int kBytePanelsOfOne = 8;
constexpr int kBytePanelsOfFew = 4;
constexpr int kBytePanelsOfMany = 2;
constexpr int kByteMaxRows = 6;

inline V16 Set1(float x) { return {_mm512_set1_ps(x)}; }
inline V16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void Store(float* p, V16 a) { _mm512_storeu_ps(p, a.v); }
inline V16 Add(V16 a, V16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V16 Sub(V16 a, V16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V16 Mul(V16 a, V16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V16 Div(V16 a, V16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V16 Fma(V16 a, V16 b, V16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V16 Sqrt(V16 a) { return {_mm512_sqrt_ps(a.v)}; }
// a > b ? a : b, and a < b ? a : b: a NaN on either side gives b.
inline V16 Max(V16 a, V16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V16 Min(V16 a, V16 b) { return {_mm512_min_ps(a.v, b.v)}; }

inline float FirstLane(V16 a) { return _mm512_cvtss_f32(a.v); }
// Lane i + kHalf in lane i, for i < kHalf.
template <int kHalf>
inline V16 UpperLanes(V16 a) {
  if constexpr (kHalf == 8) {
    return {_mm512_shuffle_f32x4(a.v, a.v, _MM_SHUFFLE(3, 2, 3, 2))};
  } else if constexpr (kHalf == 4) {
    return {_mm512_shuffle_f32x4(a.v, a.v, _MM_SHUFFLE(1, 1, 1, 1))};
  } else {
    return {_mm512_permute_ps(a.v, kHalf == 2 ? _MM_SHUFFLE(3, 2, 3, 2) : _MM_SHUFFLE(1, 1, 1, 1))};
  }
}

inline I16 Bits(V16 a) { return {_mm512_castps_si512(a.v)}; }
inline V16 FromBits(I16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline I16 SetI(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I16 LoadI(const void* p) { return {_mm512_loadu_si512(p)}; }
inline void StoreI(void* p, I16 a) { _mm512_storeu_si512(p, a.v); }
inline I16 AddI(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I16 SubI(I16 a, I16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I16 AndI(I16 a, I16 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline I16 XorI(I16 a, I16 b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int kBits>
inline I16 ShiftLeft(I16 a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
template <int kBits>
inline I16 ShiftRight(I16 a) {
  return {_mm512_srli_epi32(a.v, kBits)};
}
template <int kBits>
inline I16 ShiftRightSigned(I16 a) {
  return {_mm512_srai_epi32(a.v, kBits)};
}

inline M16 FirstLanes(int64_t n) { return {static_cast<__mmask16>((1u << n) - 1u)}; }
inline M16 Less(V16 a, V16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline M16 Equal(V16 a, V16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline M16 NonZero(I16 a) { return {_mm512_test_epi32_mask(a.v, a.v)}; }
inline uint32_t MaskBits(M16 a) { return a.m; }
inline V16 Choose(M16 mask, V16 yes, V16 no) { return {_mm512_mask_blend_ps(mask.m, no.v, yes.v)}; }

// The first n lanes (0 <= n <= 16), the others zero; memory beyond them is not touched.
inline V16 LoadN(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(FirstLanes(n).m, p)}; }
inline void StoreN(float* p, V16 a, int64_t n) { _mm512_mask_storeu_ps(p, FirstLanes(n).m, a.v); }

inline V16 WidenF16(__m256i h) { return {_mm512_cvtph_ps(h)}; }
inline V16 WidenBF16(__m256i h) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
inline __m256i NarrowF16(V16 a) {
  return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline __m256i NarrowBF16(V16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
}
template <LaneType kType>
inline V16 LoadAs(const void* p) {
  if constexpr (kType == kLaneF32) {
    return Load(static_cast<const float*>(p));
  } else {
    const __m256i h = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    return kType == kLaneF16 ? WidenF16(h) : WidenBF16(h);
  }
}
template <LaneType kType>
inline V16 LoadAsN(const void* p, int64_t n) {
  if constexpr (kType == kLaneF32) {
    return LoadN(static_cast<const float*>(p), n);
  } else {
    const __m256i h = _mm256_maskz_loadu_epi16(FirstLanes(n).m, p);
    return kType == kLaneF16 ? WidenF16(h) : WidenBF16(h);
  }
}
template <LaneType kType>
inline void StoreAsN(void* p, V16 a, int64_t n) {
  if constexpr (kType == kLaneF32) {
    StoreN(static_cast<float*>(p), a, n);
  } else {
    _mm256_mask_storeu_epi16(p, FirstLanes(n).m, kType == kLaneF16 ? NarrowF16(a) : NarrowBF16(a));
  }
}

inline V16 RoundToF16(V16 a) { return WidenF16(NarrowF16(a)); }

// Bytes 0 and 2 of each lane, and bytes 1 and 3, sign-extended to two 16-bit numbers.
inline I16 EvenBytes(I16 a) { return {_mm512_srai_epi16(_mm512_slli_epi16(a.v, 8), 8)}; }
inline I16 OddBytes(I16 a) { return {_mm512_srai_epi16(a.v, 8)}; }
// The pair p[0], p[1] in every lane.
inline I16 SetPair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return SetI(pair);
}
// low·low + high·high of each lane.
inline I16 DotPairs(I16 a, I16 b) { return {_mm512_madd_epi16(a.v, b.v)}; }
// 16 numbers of 16 bits, the middle two of every four exchanged.
inline void StoreQuads(int16_t* p, I16 a) {
  constexpr int kOrder = _MM_SHUFFLE(3, 1, 2, 0);
  const __m256i numbers = _mm512_cvtepi32_epi16(a.v);
  const __m256i quads = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(numbers, kOrder), kOrder);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), quads);
}
inline V16 ToFloat(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }

// 16 numbers as bytes.
inline void StoreBytes(int8_t* p, I16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
// 16 numbers as bytes, of every 8 first those of even place, then those of odd place.
inline void StoreEvenThenOddBytes(int8_t* p, I16 a) {
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  const __m128i bytes = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(a.v), order);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
// 16 bytes, and a look-up in them by four nibbles in the bytes of a lane.
struct ByteTable {
  __m512i v;
};
inline ByteTable LoadByteTable(const int8_t* bytes) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)))};
}
inline I16 LookupBytes(ByteTable table, I16 nibbles) {
  return {_mm512_shuffle_epi8(table.v, nibbles.v)};
}

// Four signed bytes in every lane; sum + byte · byte, four of each lane, none of them -128. Signs
// go to the second factor, so that the first is unsigned; two products of 127 · 127 fit 16 bits.
struct SignedBytes {
  __m512i magnitude;
  __mmask64 negative;
};
inline SignedBytes SetSignedBytes(const int8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof(bytes));
  const __m512i all = _mm512_set1_epi32(bytes);
  return {_mm512_abs_epi8(all), _mm512_movepi8_mask(all)};
}
inline I16 DotSigned(I16 sum, I16 a, const SignedBytes& b) {
  const __m512i factor = _mm512_mask_sub_epi8(a.v, b.negative, _mm512_setzero_si512(), a.v);
  const __m512i pairs = _mm512_maddubs_epi16(b.magnitude, factor);
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}

inline Codebook LoadCodebook(const float* table) { return {_mm512_loadu_ps(table)}; }
// table[low 4 bits of each lane]; the permutation ignores the other bits.
inline V16 Lookup(Codebook table, I16 code) { return {_mm512_permutexvar_ps(code.v, table.v)}; }
// What 8-bit scales stand for: 256 numbers, their halves apart.
struct ScaleMap {
  __m512i lower[8], upper[8];
};
inline ScaleMap LoadScaleMap(const float* numbers) {
  ScaleMap map;
  for (int i = 0; i < 8 && numbers != nullptr; ++i) {
    const __m512i first = _mm512_loadu_si512(numbers + 32 * i);
    const __m512i second = _mm512_loadu_si512(numbers + 32 * i + 16);
    const auto pack = [](__m512i a, __m512i b) {
      return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)),
                                _mm512_cvtepi32_epi16(b), 1);
    };
    map.lower[i] = pack(first, second);
    map.upper[i] = pack(_mm512_srli_epi32(first, 16), _mm512_srli_epi32(second, 16));
  }
  return map;
}
// table[low 8 bits of each half]: a permutation reads 6 of them, two masks the others.
inline __m512i LookupHalves(const __m512i (&table)[8], __m512i code, __mmask32 bit6,
                            __mmask32 bit7) {
  __m512i quarter[4];
  for (int i = 0; i < 4; ++i) {
    quarter[i] = _mm512_permutex2var_epi16(table[2 * i], code, table[2 * i + 1]);
  }
  const __m512i lower = _mm512_mask_blend_epi16(bit6, quarter[0], quarter[1]);
  const __m512i upper = _mm512_mask_blend_epi16(bit6, quarter[2], quarter[3]);
  return _mm512_mask_blend_epi16(bit7, lower, upper);
}
// map[a[i]] and map[b[i]] in lane i. Four codes of a and four of b alternate, so that interleaving
// the halves that are found brings them into order.
inline void LookupScales(const ScaleMap& map, const uint8_t* a, const uint8_t* b, V16 (&found)[2]) {
  const __m128i codes_a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
  const __m128i codes_b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b));
  const __m128i front = _mm_unpacklo_epi32(codes_a, codes_b);
  const __m128i back = _mm_unpackhi_epi32(codes_a, codes_b);
  const __m512i code = _mm512_cvtepu8_epi16(_mm256_set_m128i(back, front));
  const __mmask32 bit6 = _mm512_test_epi16_mask(code, _mm512_set1_epi16(64));
  const __mmask32 bit7 = _mm512_test_epi16_mask(code, _mm512_set1_epi16(128));
  const __m512i lower = LookupHalves(map.lower, code, bit6, bit7);
  const __m512i upper = LookupHalves(map.upper, code, bit6, bit7);
  found[0] = {_mm512_castsi512_ps(_mm512_unpacklo_epi16(lower, upper))};
  found[1] = {_mm512_castsi512_ps(_mm512_unpackhi_epi16(lower, upper))};
}
// Inlined by force: GCC takes a call of it for one without effect.
__attribute__((always_inline)) inline void Prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

}  // namespace
}  // namespace nibble
