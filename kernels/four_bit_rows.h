// The inner loops of the 4-bit formats, one row per ISA that this machine may have. Rows differ in
// speed and in nothing else: every row gives the same bits. Knows no matrices: groups of values in
// memory, and codes out.
//
//   scale a group := multiply by fp32 1 / max(absmax, 1e-38)
//   rank          := how many of 15 ascending thresholds a scaled value exceeds, strictly
//   code          := codes[rank]; two in a byte, the even value's in the high half
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.h"
#include "kernels/weight.h"

namespace nibble {

inline constexpr float kSmallestDivisor = 1e-38f;
inline constexpr int64_t kRowStep = 32;  // every count of values below is a multiple of it

// Groups are taken in batches of so many values, read twice: first for their scales, then for their
// codes, while the next batch is fetched (fetching past the end of memory is harmless).
inline constexpr int64_t kBatchValues = 8192;

// How a scaled value becomes a code.
struct FourBitRule {
  alignas(64) std::array<float, 16> thresholds;  // 15, ascending; the last is not read
  alignas(64) std::array<float, 16> levels;      // what each rank stands for, ascending
  alignas(16) std::array<uint8_t, 16> codes;     // of each rank
};

// The sums that fit one scale to one choice of codes: Σ value · level and Σ level · level. Value i
// is added to lane i % 32; at the end the upper half of the lanes is added to the lower until one
// is left: an order that any ISA keeps.
struct FitSums {
  float cross = 0;
  float square = 0;
};

struct FourBitRow {
  const char* name;

  // absmax[groups] of groups of group_size values of the type. Returns how many come before the
  // first with a NaN or Inf. By DType.
  std::array<int64_t (*)(const void* values, int64_t groups, int64_t group_size, float* absmax), 3>
      scales;

  // packed[groups · group_size / 2] of the same values, each group times its inverse. By DType.
  std::array<void (*)(const void* values, int64_t groups, int64_t group_size,
                      const FourBitRule& rule, const float* inverse, uint8_t* packed),
             3>
      codes;

  // The sums over values[count] for the codes that values · inverse round to.
  FitSums (*fit)(const float* values, int64_t count, float inverse, const FourBitRule& rule);

  // values[count] = table[code] of packed[count / 2].
  void (*decode)(const uint8_t* packed, int64_t count, const float* table, float* values);
};

// Quantizes groups of values of the type: absmax[groups] and packed[groups · group_size / 2].
// Returns how many came before the first with a NaN or Inf; what follows it is unspecified.
int64_t EncodeGroups(const FourBitRow& row, DType dtype, const void* values, int64_t groups,
                     int64_t group_size, const FourBitRule& rule, float* absmax, uint8_t* packed);
// Packs the codes of values / divisor, any number of them; an odd one is followed by zero's.
void EncodeDivided(std::span<const float> values, float divisor, const FourBitRule& rule,
                   uint8_t* packed);

// Of kNf4 or kFp4.
const FourBitRule& RuleOf(WeightFormat format);

// What this machine can run, the baseline first and the fastest last.
std::vector<FourBitRow> FourBitRows();
// The fastest.
const FourBitRow& FastestFourBitRow();

// The rows themselves; only FourBitRows() knows whether one may run.
extern const FourBitRow kFourBitBaseline;
extern const FourBitRow kFourBitAvx2;
extern const FourBitRow kFourBitAvx512;

}  // namespace nibble
