// The 4-bit formats' inner loops in AVX2. Only functions marked for it may use it: what the
// compiler emits for headers must run anywhere, so nothing here calls an inline function of theirs.
#include <immintrin.h>

#include "kernels/four_bit_rows.h"

namespace nibble {
namespace {

constexpr uint32_t kInfinity = 0x7f800000u;

// What a binary search over the thresholds compares with; all but the first are looked up by the
// bits of the rank found so far.
struct Search {
  __m256 first, second, third, fourth;
};

[[gnu::target("avx2")]] inline Search MakeSearch(const FourBitRule& rule) {
  const float* t = &rule.thresholds[0];
  return {_mm256_set1_ps(t[7]), _mm256_setr_ps(t[3], t[11], t[3], t[11], t[3], t[11], t[3], t[11]),
          _mm256_setr_ps(t[1], t[5], t[9], t[13], t[1], t[5], t[9], t[13]),
          _mm256_setr_ps(t[0], t[2], t[4], t[6], t[8], t[10], t[12], t[14])};
}

// 1 where scaled > the threshold that rank selects, appended to rank as its lowest bit.
[[gnu::target("avx2"), gnu::always_inline]] inline __m256i Append(__m256i rank, __m256 scaled,
                                                                  __m256 thresholds) {
  const __m256 threshold = _mm256_permutevar8x32_ps(thresholds, rank);
  const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(scaled, threshold, _CMP_GT_OQ));
  return _mm256_sub_epi32(_mm256_add_epi32(rank, rank), above);
}

[[gnu::target("avx2"), gnu::always_inline]] inline __m256i Ranks(__m256 scaled,
                                                                 const Search& search) {
  const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(scaled, search.first, _CMP_GT_OQ));
  const __m256i rank = _mm256_srli_epi32(above, 31);
  return Append(Append(Append(rank, scaled, search.second), scaled, search.third), scaled,
                search.fourth);
}

[[gnu::target("avx2"), gnu::always_inline]] inline __m256i Load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// The ranks of values [i, i + 16) in eight lanes, an even one's in the lowest byte and the next
// odd one's in the byte above it.
template <DType kType>
[[gnu::target("avx2,f16c"), gnu::always_inline]] inline __m256i RankPairs(const uint8_t* values,
                                                                          __m256 inverse,
                                                                          const Search& search) {
  __m256 even, odd;
  if constexpr (kType == DType::kBF16) {
    const __m256i both = Load(values);
    even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
    odd = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(-65536)));
  } else {
    __m256 low, high;
    if constexpr (kType == DType::kF16) {
      low = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
      high = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values + 16)));
    } else {
      low = _mm256_castsi256_ps(Load(values));
      high = _mm256_castsi256_ps(Load(values + 32));
    }
    even = _mm256_shuffle_ps(low, high, 0x88);
    odd = _mm256_shuffle_ps(low, high, 0xdd);
  }
  const __m256i pairs =
      _mm256_or_si256(Ranks(_mm256_mul_ps(even, inverse), search),
                      _mm256_slli_epi32(Ranks(_mm256_mul_ps(odd, inverse), search), 8));
  if constexpr (kType == DType::kBF16) return pairs;
  return _mm256_permute4x64_epi64(pairs, 0xd8);  // the shuffles worked in halves
}

// The bits of the largest |value|, in the values' own type.
template <DType kType>
[[gnu::target("avx2"), gnu::always_inline]] inline uint32_t LargestMagnitude(const uint8_t* values,
                                                                             int64_t bytes) {
  __m256i largest = _mm256_setzero_si256();
  if constexpr (kType == DType::kF32) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int64_t at = 0; at < bytes; at += 32) {
      largest = _mm256_max_epi32(largest, _mm256_and_si256(Load(values + at), magnitude));
    }
    __m128i four =
        _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
  } else {
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    for (int64_t at = 0; at < bytes; at += 32) {
      largest = _mm256_max_epu16(largest, _mm256_and_si256(Load(values + at), magnitude));
    }
    const __m128i eight =
        _mm_max_epu16(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    // The only horizontal instruction finds a minimum.
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
    return 0xffffu ^ (static_cast<uint32_t>(_mm_cvtsi128_si32(least)) & 0xffffu);
  }
}

template <DType kType>
[[gnu::target("avx2,f16c"), gnu::always_inline]] inline __m128 WidenBits(uint32_t bits) {
  const __m128i value = _mm_cvtsi32_si128(static_cast<int>(bits));
  if constexpr (kType == DType::kF16) return _mm_cvtph_ps(value);
  if constexpr (kType == DType::kBF16) return _mm_castsi128_ps(_mm_slli_epi32(value, 16));
  return _mm_castsi128_ps(value);
}

template <DType kType>
[[gnu::target("avx2,f16c")]] int64_t Scales(const void* values, int64_t groups, int64_t group_size,
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
[[gnu::target("avx2,f16c")]] void Codes(const void* values, int64_t groups, int64_t group_size,
                                        const FourBitRule& rule, const float* inverses,
                                        uint8_t* packed) {
  constexpr int64_t kBytes = kType == DType::kF32 ? 4 : 2;
  const Search search = MakeSearch(rule);
  const __m256i codes =
      _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(&rule.codes[0])));
  const __m256i weights = _mm256_set1_epi16(0x0110);  // the even code times 16, the odd one once
  const auto* at = static_cast<const uint8_t*>(values);
  for (int64_t group = 0; group < groups; ++group) {
    const __m256 inverse = _mm256_set1_ps(inverses[group]);
    for (int64_t i = 0; i < group_size; i += kRowStep) {
      for (int64_t line = 0; line < kRowStep * kBytes; line += 64) {
        _mm_prefetch(at + kBatchValues * kBytes + line, _MM_HINT_T0);
      }
      const __m256i low = RankPairs<kType>(at, inverse, search);
      const __m256i high = RankPairs<kType>(at + 16 * kBytes, inverse, search);
      const __m256i ranks = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
      const __m256i bytes = _mm256_maddubs_epi16(_mm256_shuffle_epi8(codes, ranks), weights);
      _mm_storeu_si128(
          reinterpret_cast<__m128i*>(packed),
          _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
      at += kRowStep * kBytes;
      packed += kRowStep / 2;
    }
  }
}

// The levels of eight ranks: a permutation reaches eight, so two and a choice by the highest bit.
[[gnu::target("avx2"), gnu::always_inline]] inline __m256 Select(__m256i rank, __m256 low,
                                                                 __m256 high) {
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, rank), _mm256_permutevar8x32_ps(high, rank),
                          _mm256_castsi256_ps(_mm256_slli_epi32(rank, 28)));
}

[[gnu::target("avx2"), gnu::always_inline]] inline float SumLanes(const __m256* lanes) {
  const __m256 eight =
      _mm256_add_ps(_mm256_add_ps(lanes[0], lanes[2]), _mm256_add_ps(lanes[1], lanes[3]));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

[[gnu::target("avx2")]] FitSums Fit(const float* values, int64_t count, float inverse,
                                    const FourBitRule& rule) {
  const Search search = MakeSearch(rule);
  const __m256 low = _mm256_load_ps(&rule.levels[0]);
  const __m256 high = _mm256_load_ps(&rule.levels[8]);
  const __m256 scale = _mm256_set1_ps(inverse);
  const __m256 zero = _mm256_setzero_ps();
  __m256 cross[4] = {zero, zero, zero, zero};
  __m256 square[4] = {zero, zero, zero, zero};
  for (int64_t i = 0; i < count; i += kRowStep) {
    for (int part = 0; part < 4; ++part) {
      const __m256 value = _mm256_loadu_ps(values + i + 8 * part);
      const __m256 level = Select(Ranks(_mm256_mul_ps(value, scale), search), low, high);
      cross[part] = _mm256_add_ps(cross[part], _mm256_mul_ps(value, level));
      square[part] = _mm256_add_ps(square[part], _mm256_mul_ps(level, level));
    }
  }
  return {SumLanes(cross), SumLanes(square)};
}

[[gnu::target("avx2")]] void Decode(const uint8_t* packed, int64_t count, const float* table,
                                    float* values) {
  const __m256 low = _mm256_loadu_ps(table);
  const __m256 high = _mm256_loadu_ps(table + 8);
  for (int64_t i = 0; i < count; i += 16) {
    const __m256i bytes =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed + i / 2)));
    const __m256 even = Select(_mm256_srli_epi32(bytes, 4), low, high);
    const __m256 odd = Select(bytes, low, high);
    const __m256 first = _mm256_unpacklo_ps(even, odd);   // pairs 0, 1 and 4, 5
    const __m256 second = _mm256_unpackhi_ps(even, odd);  // pairs 2, 3 and 6, 7
    _mm256_storeu_ps(values + i, _mm256_permute2f128_ps(first, second, 0x20));
    _mm256_storeu_ps(values + i + 8, _mm256_permute2f128_ps(first, second, 0x31));
  }
}

}  // namespace

const FourBitRow kFourBitAvx2 = {"avx2",
                                 {Scales<DType::kF32>, Scales<DType::kF16>, Scales<DType::kBF16>},
                                 {Codes<DType::kF32>, Codes<DType::kF16>, Codes<DType::kBF16>},
                                 Fit,
                                 Decode};

}  // namespace nibble
