// The 4-bit formats' inner loops in AVX-512. Only functions marked for it may use it: what the
// compiler emits for headers must run anywhere, so nothing here calls an inline function of theirs.
#include <immintrin.h>

#include "kernels/four_bit_rows.h"

namespace nibble {
namespace {

constexpr uint32_t kInfinity = 0x7f800000u;

// Values [i, i + 32) in fp32, parted so that the lanes of a pair make a byte.
struct Pairs {
  __m512 even, odd;
};

// What a binary search over the thresholds compares with; all but the first are looked up by the
// bits of the rank found so far.
struct Search {
  __m512 first, second, third, fourth;
};

[[gnu::target("avx512f,avx512bw,avx512vl")]] inline Search MakeSearch(const FourBitRule& rule) {
  const __m512 t = _mm512_load_ps(&rule.thresholds[0]);
  const __m512i second = _mm512_setr_epi32(3, 3, 3, 3, 3, 3, 3, 3, 11, 11, 11, 11, 11, 11, 11, 11);
  const __m512i third = _mm512_setr_epi32(1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 9, 13, 13, 13, 13);
  return {_mm512_set1_ps(rule.thresholds[7]), _mm512_permutexvar_ps(second, t),
          _mm512_permutexvar_ps(third, t), t};
}

[[gnu::target("avx512f,avx512bw,avx512vl"), gnu::always_inline]] inline __m512i Ranks(
    __m512 scaled, const Search& search) {
  __mmask16 above = _mm512_cmp_ps_mask(scaled, search.first, _CMP_GT_OQ);
  __m512i rank = _mm512_maskz_set1_epi32(above, 8);
  above = _mm512_cmp_ps_mask(scaled, _mm512_permutexvar_ps(rank, search.second), _CMP_GT_OQ);
  rank = _mm512_mask_or_epi32(rank, above, rank, _mm512_set1_epi32(4));
  above = _mm512_cmp_ps_mask(scaled, _mm512_permutexvar_ps(rank, search.third), _CMP_GT_OQ);
  rank = _mm512_mask_or_epi32(rank, above, rank, _mm512_set1_epi32(2));
  above = _mm512_cmp_ps_mask(scaled, _mm512_permutexvar_ps(rank, search.fourth), _CMP_GT_OQ);
  return _mm512_mask_or_epi32(rank, above, rank, _mm512_set1_epi32(1));
}

[[gnu::target("avx512f,avx512bw,avx512vl"), gnu::always_inline]] inline __m512i Load(
    const void* from) {
  return _mm512_loadu_si512(from);
}

template <DType kType>
[[gnu::target("avx512f,avx512bw,avx512vl"), gnu::always_inline]] inline Pairs LoadPairs(
    const uint8_t* values) {
  if constexpr (kType == DType::kBF16) {
    const __m512i both = Load(values);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536)))};
  }
  __m512 low, high;
  if constexpr (kType == DType::kF16) {
    low = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
    high = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + 32)));
  } else {
    low = _mm512_castsi512_ps(Load(values));
    high = _mm512_castsi512_ps(Load(values + 64));
  }
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  return {_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high)};
}

// The bits of the largest |value|, in the values' own type.
template <DType kType>
[[gnu::target("avx512f,avx512bw,avx512vl"), gnu::always_inline]] inline uint32_t LargestMagnitude(
    const uint8_t* values, int64_t bytes) {
  __m512i largest = _mm512_setzero_si512();
  if constexpr (kType == DType::kF32) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int64_t at = 0; at < bytes; at += 64) {
      largest = _mm512_max_epi32(largest, _mm512_and_si512(Load(values + at), magnitude));
    }
    return static_cast<uint32_t>(_mm512_reduce_max_epi32(largest));
  } else {
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    for (int64_t at = 0; at < bytes; at += 64) {
      largest = _mm512_max_epu16(largest, _mm512_and_si512(Load(values + at), magnitude));
    }
    const __m256i half =
        _mm256_max_epu16(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1));
    const __m128i eight =
        _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    // The only horizontal instruction finds a minimum.
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
    return 0xffffu ^ (static_cast<uint32_t>(_mm_cvtsi128_si32(least)) & 0xffffu);
  }
}

template <DType kType>
[[gnu::target("avx512f,avx512bw,avx512vl,f16c"), gnu::always_inline]] inline __m128 WidenBits(
    uint32_t bits) {
  const __m128i value = _mm_cvtsi32_si128(static_cast<int>(bits));
  if constexpr (kType == DType::kF16) return _mm_cvtph_ps(value);
  if constexpr (kType == DType::kBF16) return _mm_castsi128_ps(_mm_slli_epi32(value, 16));
  return _mm_castsi128_ps(value);
}

template <DType kType>
[[gnu::target("avx512f,avx512bw,avx512vl,f16c")]] int64_t Scales(const void* values, int64_t groups,
                                                                 int64_t group_size,
                                                                 float* absmax) {
  constexpr int64_t kBytes = kType == DType::kF32 ? 4 : 2;
  constexpr uint32_t kLimit = kType == DType::kF32   ? kInfinity
                              : kType == DType::kF16 ? 0x7c00u
                                                     : kInfinity >> 16;
  const auto* at = static_cast<const uint8_t*>(values);
  for (int64_t group = 0; group < groups; ++group) {
    const uint32_t bits = LargestMagnitude<kType>(at, group_size * kBytes);
    if (bits >= kLimit) return group;
    _mm_store_ss(absmax + group, WidenBits<kType>(bits));
    at += group_size * kBytes;
  }
  return groups;
}

template <DType kType>
[[gnu::target("avx512f,avx512bw,avx512vl,f16c")]] void Codes(const void* values, int64_t groups,
                                                             int64_t group_size,
                                                             const FourBitRule& rule,
                                                             const float* inverses,
                                                             uint8_t* packed) {
  constexpr int64_t kBytes = kType == DType::kF32 ? 4 : 2;
  const Search search = MakeSearch(rule);
  const __m512i low_codes =
      _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(&rule.codes[0])));
  const __m512i high_codes = _mm512_slli_epi32(low_codes, 4);
  const auto* at = static_cast<const uint8_t*>(values);
  for (int64_t group = 0; group < groups; ++group) {
    const __m512 inverse = _mm512_set1_ps(inverses[group]);
    for (int64_t i = 0; i < group_size; i += kRowStep) {
      for (int64_t line = 0; line < kRowStep * kBytes; line += 64) {
        _mm_prefetch(at + kBatchValues * kBytes + line, _MM_HINT_T0);
      }
      const Pairs pairs = LoadPairs<kType>(at);
      const __m512i even = Ranks(_mm512_mul_ps(pairs.even, inverse), search);
      const __m512i odd = Ranks(_mm512_mul_ps(pairs.odd, inverse), search);
      const __m512i bytes = _mm512_or_si512(_mm512_permutexvar_epi32(even, high_codes),
                                            _mm512_permutexvar_epi32(odd, low_codes));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), _mm512_cvtepi32_epi8(bytes));
      at += kRowStep * kBytes;
      packed += kRowStep / 2;
    }
  }
}

[[gnu::target("avx512f,avx512bw,avx512vl"), gnu::always_inline]] inline float SumLanes(
    __m512 lanes) {
  const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(lanes), 1));
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), upper);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

[[gnu::target("avx512f,avx512bw,avx512vl")]] FitSums Fit(const float* values, int64_t count,
                                                         float inverse, const FourBitRule& rule) {
  const Search search = MakeSearch(rule);
  const __m512 levels = _mm512_load_ps(&rule.levels[0]);
  const __m512 scale = _mm512_set1_ps(inverse);
  __m512 cross[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  __m512 square[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t i = 0; i < count; i += kRowStep) {
    for (int half = 0; half < 2; ++half) {
      const __m512 value = _mm512_loadu_ps(values + i + 16 * half);
      const __m512 level =
          _mm512_permutexvar_ps(Ranks(_mm512_mul_ps(value, scale), search), levels);
      cross[half] = _mm512_add_ps(cross[half], _mm512_mul_ps(value, level));
      square[half] = _mm512_add_ps(square[half], _mm512_mul_ps(level, level));
    }
  }
  return {SumLanes(_mm512_add_ps(cross[0], cross[1])),
          SumLanes(_mm512_add_ps(square[0], square[1]))};
}

[[gnu::target("avx512f,avx512bw,avx512vl")]] void Decode(const uint8_t* packed, int64_t count,
                                                         const float* table, float* values) {
  const __m512 levels = _mm512_loadu_ps(table);
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_or_si512(first, _mm512_set1_epi32(8));
  for (int64_t i = 0; i < count; i += kRowStep) {
    const __m512i bytes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + i / 2)));
    const __m512 even = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), levels);
    const __m512 odd = _mm512_permutexvar_ps(bytes, levels);  // the index's low 4 bits count
    _mm512_storeu_ps(values + i, _mm512_permutex2var_ps(even, first, odd));
    _mm512_storeu_ps(values + i + 16, _mm512_permutex2var_ps(even, second, odd));
  }
}

}  // namespace

const FourBitRow kFourBitAvx512 = {"avx512",
                                   {Scales<DType::kF32>, Scales<DType::kF16>, Scales<DType::kBF16>},
                                   {Codes<DType::kF32>, Codes<DType::kF16>, Codes<DType::kBF16>},
                                   Fit,
                                   Decode};

}  // namespace nibble
