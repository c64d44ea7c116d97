// The row that runs anywhere, and which rows this machine has.
#include "kernels/four_bit_rows.h"

#include <algorithm>
#include <bit>

#include "kernels/half.h"

namespace nibble {
namespace {

constexpr uint32_t kInfinity = 0x7f800000u;

template <DType kType>
float Widen(const void* values, int64_t i) {
  if constexpr (kType == DType::kF32) return static_cast<const float*>(values)[i];
  if constexpr (kType != DType::kF32) {
    return HalfToF32(kType, static_cast<const uint16_t*>(values)[i]);
  }
}

// |value|'s bits order like |value|, and NaN and Inf come last: one integer maximum, which unlike a
// float one may be taken in any order, finds the scale and what must be refused.
template <DType kType>
uint32_t LargestMagnitude(const void* values, int64_t count) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<int32_t>(Widen<kType>(values, i)) & 0x7fffffff);
  }
  return static_cast<uint32_t>(largest);
}

// Counting thresholds has no branch and vectorizes on any ISA, in lanes as wide as the
// comparison's.
void RankStep(const float* scaled, const FourBitRule& rule, int32_t* ranks) {
  for (int64_t i = 0; i < kRowStep; ++i) {
    int32_t rank = 0;
    for (size_t t = 0; t < 15; ++t) rank += scaled[i] > rule.thresholds[t] ? 1 : 0;
    ranks[i] = rank;
  }
}

void PackStep(const int32_t* ranks, const FourBitRule& rule, uint8_t* packed) {
  for (int64_t j = 0; j < kRowStep / 2; ++j) {
    const int high = rule.codes[static_cast<size_t>(ranks[2 * j])];
    const int low = rule.codes[static_cast<size_t>(ranks[2 * j + 1])];
    packed[j] = static_cast<uint8_t>(high << 4 | low);
  }
}

template <DType kType>
int64_t Scales(const void* values, int64_t groups, int64_t group_size, float* absmax) {
  const auto* at = static_cast<const uint8_t*>(values);
  for (int64_t group = 0; group < groups; ++group) {
    const uint32_t largest = LargestMagnitude<kType>(at, group_size);
    if (largest >= kInfinity) return group;
    absmax[group] = std::bit_cast<float>(largest);
    at += group_size * SizeOf(kType);
  }
  return groups;
}

template <DType kType>
void Codes(const void* values, int64_t groups, int64_t group_size, const FourBitRule& rule,
           const float* inverse, uint8_t* packed) {
  for (int64_t begin = 0; begin < groups * group_size; begin += kRowStep) {
    float scaled[kRowStep];
    int32_t ranks[kRowStep];
    const float scale = inverse[begin / group_size];
    for (int64_t i = 0; i < kRowStep; ++i) scaled[i] = Widen<kType>(values, begin + i) * scale;
    RankStep(scaled, rule, ranks);
    PackStep(ranks, rule, packed + begin / 2);
  }
}

float SumLanes(float* lanes) {
  for (int64_t width = kRowStep / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

FitSums Fit(const float* values, int64_t count, float inverse, const FourBitRule& rule) {
  float cross[kRowStep] = {};
  float square[kRowStep] = {};
  for (int64_t begin = 0; begin < count; begin += kRowStep) {
    float scaled[kRowStep];
    int32_t ranks[kRowStep];
    for (int64_t i = 0; i < kRowStep; ++i) scaled[i] = values[begin + i] * inverse;
    RankStep(scaled, rule, ranks);
    for (int64_t i = 0; i < kRowStep; ++i) {
      const float level = rule.levels[static_cast<size_t>(ranks[i])];
      cross[i] += values[begin + i] * level;
      square[i] += level * level;
    }
  }
  return {SumLanes(cross), SumLanes(square)};
}

void Decode(const uint8_t* packed, int64_t count, const float* table, float* values) {
  for (int64_t j = 0; j < count / 2; ++j) {
    values[2 * j] = table[packed[j] >> 4];
    values[2 * j + 1] = table[packed[j] & 15];
  }
}

}  // namespace

const FourBitRow kFourBitBaseline = {
    "baseline",
    {Scales<DType::kF32>, Scales<DType::kF16>, Scales<DType::kBF16>},
    {Codes<DType::kF32>, Codes<DType::kF16>, Codes<DType::kBF16>},
    Fit,
    Decode};

int64_t EncodeGroups(const FourBitRow& row, DType dtype, const void* values, int64_t groups,
                     int64_t group_size, const FourBitRule& rule, float* absmax, uint8_t* packed) {
  // A batch's values are read twice, so they should still be in the first cache; and its scales are
  // all known before a code needs one, so that no code waits for a division.
  std::array<float, kBatchValues / kRowStep> inverse;
  const int64_t batch = std::max<int64_t>(kBatchValues / group_size, 1);
  for (int64_t begin = 0; begin < groups; begin += batch) {
    const int64_t count = std::min(batch, groups - begin);
    const auto* at = static_cast<const uint8_t*>(values) + begin * group_size * SizeOf(dtype);
    const int64_t finite =
        row.scales[static_cast<size_t>(dtype)](at, count, group_size, absmax + begin);
    if (finite < count) return begin + finite;
    for (int64_t i = 0; i < count; ++i) {
      inverse[static_cast<size_t>(i)] = 1.0f / std::max(absmax[begin + i], kSmallestDivisor);
    }
    row.codes[static_cast<size_t>(dtype)](at, count, group_size, rule, inverse.data(),
                                          packed + begin * group_size / 2);
  }
  return groups;
}

void EncodeDivided(std::span<const float> values, float divisor, const FourBitRule& rule,
                   uint8_t* packed) {
  for (size_t begin = 0; begin < values.size(); begin += kRowStep) {
    const size_t count = std::min<size_t>(kRowStep, values.size() - begin);
    float scaled[kRowStep] = {};
    int32_t ranks[kRowStep];
    uint8_t bytes[kRowStep / 2];
    for (size_t i = 0; i < count; ++i) scaled[i] = values[begin + i] / divisor;
    RankStep(scaled, rule, ranks);
    PackStep(ranks, rule, bytes);
    std::copy_n(bytes, (count + 1) / 2, packed + begin / 2);
  }
}

std::vector<FourBitRow> FourBitRows() {
  std::vector<FourBitRow> rows = {kFourBitBaseline};
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (avx2) rows.push_back(kFourBitAvx2);
  if (avx512) rows.push_back(kFourBitAvx512);
  return rows;
}

const FourBitRow& FastestFourBitRow() {
  static const FourBitRow row = FourBitRows().back();
  return row;
}

}  // namespace nibble
