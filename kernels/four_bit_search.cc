// For given codes the best scale is known, Σ v·l / Σ l·l, and leaves Σ v² − (Σ v·l)² / Σ l·l. So
// the search is for codes: those of a grid of scales are tried, then the best ones' own best scale
// gives new codes, as long as that gains. The last word has the exact error.
#include "kernels/four_bit_search.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/four_bit.h"

namespace nibble {
namespace {

// Ratios of the scale to the largest |value|, in steps of 1/48. Large groups want less than 1:
// their outermost values are cut off. Small ones may want up to 1 / 0.72, which puts the largest
// value on NF4's second level.
constexpr int kSteps = 48;
constexpr int kFirstStep = 28;
constexpr int kLastStep = 68;
constexpr int kRefinements = 4;

// Outside these fp32 has no room for the squares, and plain quantization stays.
constexpr float kSmallestScale = 1e-30f;
constexpr float kLargestScale = 1e30f;

constexpr size_t kLargestGroup = 4096;
using Group = std::array<float, kLargestGroup>;

// How much of Σ v² the codes explain at their best scale.
float Gain(const FitSums& sums) {
  return sums.square > 0 ? sums.cross * (sums.cross / sums.square) : 0.0f;
}

// Of values scaled to [-1, 1]: the ratio whose codes leave the least.
float BestRatio(const FourBitRow& row, const float* scaled, int64_t count,
                const FourBitRule& rule) {
  float best = 0;
  float ratio = 1;
  for (int step = kFirstStep; step <= kLastStep; ++step) {
    const float inverse = static_cast<float>(kSteps) / static_cast<float>(step);
    const FitSums sums = row.fit(scaled, count, inverse, rule);
    if (Gain(sums) <= best) continue;
    best = Gain(sums);
    ratio = sums.cross / sums.square;
  }
  for (int i = 0; i < kRefinements; ++i) {
    const FitSums sums = row.fit(scaled, count, 1.0f / ratio, rule);
    if (Gain(sums) <= best) break;
    best = Gain(sums);
    ratio = sums.cross / sums.square;
  }
  return ratio;
}

// What a reader of the codes and the scale gets wrong. Summed in eight lanes, in an order that does
// not depend on the machine.
double SquaredError(const FourBitRow& row, std::span<const float> values, const uint8_t* packed,
                    WeightFormat format, float scale) {
  std::array<float, 16> table = CodebookOf(format);
  for (float& level : table) level *= scale;
  Group read;
  row.decode(packed, static_cast<int64_t>(values.size()), table.data(), read.data());
  std::array<double, 8> sums{};
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = static_cast<double>(values[i]) - static_cast<double>(read[i]);
    sums[i % 8] += error * error;
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

void SearchScale(const FourBitRow& row, std::span<const float> values, WeightFormat format,
                 float* absmax, uint8_t* packed) {
  if (!(*absmax >= kSmallestScale && *absmax <= kLargestScale)) return;
  const auto count = static_cast<int64_t>(values.size());
  const FourBitRule& rule = RuleOf(format);
  alignas(64) Group scaled;
  const float inverse = 1.0f / *absmax;
  for (size_t i = 0; i < values.size(); ++i) scaled[i] = values[i] * inverse;

  const float scale = *absmax * BestRatio(row, scaled.data(), count, rule);
  std::array<uint8_t, kLargestGroup / 2> codes;
  const float scale_inverse = 1.0f / scale;
  row.codes[static_cast<size_t>(DType::kF32)](values.data(), 1, count, rule, &scale_inverse,
                                              codes.data());
  if (SquaredError(row, values, codes.data(), format, scale) >=
      SquaredError(row, values, packed, format, *absmax)) {
    return;
  }
  std::copy_n(codes.data(), count / 2, packed);
  *absmax = scale;
}

}  // namespace nibble
