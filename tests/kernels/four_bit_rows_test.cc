// Every ISA row that this machine has gives the bits of the baseline row.
#include "kernels/four_bit_rows.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/four_bit.h"
#include "kernels/half.h"

namespace nibble {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
constexpr WeightFormat kFormats[] = {WeightFormat::kNf4, WeightFormat::kFp4};

// Values of one type, in memory as a checkpoint has them.
struct Values {
  DType dtype;
  std::vector<uint32_t> words;
  const void* data() const { return words.data(); }
};

Values Stored(DType dtype, const std::vector<float>& wide) {
  Values values{dtype, std::vector<uint32_t>(wide.size())};
  if (dtype == DType::kF32) {
    std::copy(wide.begin(), wide.end(), reinterpret_cast<float*>(values.words.data()));
  } else {
    auto* halves = reinterpret_cast<uint16_t*>(values.words.data());
    for (size_t i = 0; i < wide.size(); ++i) halves[i] = F32ToHalf(dtype, wide[i]);
  }
  return values;
}

// Groups around every threshold, groups of zeros and of subnormals, and any finite fp32 patterns.
std::vector<float> Awkward(size_t groups, size_t group_size, const FourBitRule& rule,
                           uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> scales(0.5f, 4.0f);
  std::uniform_int_distribution<int> ulps(-2, 2), kinds(0, 4);
  std::normal_distribution<float> normal;
  std::vector<float> values;
  for (size_t group = 0; group < groups; ++group) {
    const int kind = kinds(random);
    const float scale = scales(random);
    for (size_t i = 0; i < group_size; ++i) {
      float value = i == 0 ? scale : normal(random);
      if (kind == 0 && i > 0) {
        const auto bits = std::bit_cast<int32_t>(rule.thresholds[i % 15] * scale) + ulps(random);
        value = std::bit_cast<float>(bits);
      }
      if (kind == 1) value = i % 2 == 0 ? 0.0f : -0.0f;
      if (kind == 2) value *= 1e-40f;
      if (kind == 3) value = std::bit_cast<float>(static_cast<uint32_t>(random()) & 0xbf7fffffu);
      values.push_back(value);
    }
  }
  return values;
}

struct Encoded {
  int64_t done;
  std::vector<float> absmax;
  std::vector<uint8_t> packed;
  bool operator==(const Encoded&) const = default;
};

Encoded Encode(const FourBitRow& row, const Values& values, int64_t groups, int64_t group_size,
               const FourBitRule& rule) {
  Encoded encoded{0, std::vector<float>(static_cast<size_t>(groups), -1.0f),
                  std::vector<uint8_t>(static_cast<size_t>(groups * group_size / 2), 0xee)};
  encoded.done = EncodeGroups(row, values.dtype, values.data(), groups, group_size, rule,
                              encoded.absmax.data(), encoded.packed.data());
  return encoded;
}

TEST(FourBitRows, EncodeAlike) {
  for (const WeightFormat format : kFormats) {
    const FourBitRule& rule = RuleOf(format);
    for (const int64_t group_size : {32, 64, 96, 4096}) {
      const std::vector<float> wide = Awkward(40, static_cast<size_t>(group_size), rule, 5);
      for (const DType dtype : kTypes) {
        const Values values = Stored(dtype, wide);
        const Encoded want = Encode(kFourBitBaseline, values, 40, group_size, rule);
        for (const FourBitRow& row : FourBitRows()) {
          EXPECT_EQ(Encode(row, values, 40, group_size, rule), want)
              << row.name << ' ' << Name(format) << ' ' << Name(dtype) << ' ' << group_size;
        }
      }
    }
  }
}

TEST(FourBitRows, StopBeforeTheGroupWithANanOrInf) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {kInf, -kInf, kNan, -kNan}) {
    for (const size_t index : {0u, 31u, 97u, 159u}) {
      std::vector<float> wide(160, 1.0f);
      wide[index] = bad;
      for (const DType dtype : kTypes) {
        for (const FourBitRow& row : FourBitRows()) {
          const Encoded encoded =
              Encode(row, Stored(dtype, wide), 5, 32, RuleOf(WeightFormat::kNf4));
          EXPECT_EQ(encoded.done, static_cast<int64_t>(index / 32))
              << row.name << ' ' << Name(dtype) << ' ' << bad << " at " << index;
        }
      }
    }
  }
}

TEST(FourBitRows, SumFitsAlike) {
  for (const WeightFormat format : kFormats) {
    const FourBitRule& rule = RuleOf(format);
    for (const size_t count : {32u, 64u, 4096u}) {
      std::mt19937 random(3);
      std::normal_distribution<float> normal(0, 0.4f);
      std::vector<float> values(count);
      for (float& value : values) value = std::clamp(normal(random), -1.0f, 1.0f);
      for (const float inverse : {0.7f, 1.0f, 1.6f}) {
        const auto size = static_cast<int64_t>(count);
        const FitSums want = kFourBitBaseline.fit(values.data(), size, inverse, rule);
        EXPECT_GT(want.square, 0.0f);
        for (const FourBitRow& row : FourBitRows()) {
          const FitSums got = row.fit(values.data(), size, inverse, rule);
          EXPECT_EQ(got.cross, want.cross) << row.name << ' ' << count << ' ' << inverse;
          EXPECT_EQ(got.square, want.square) << row.name << ' ' << count << ' ' << inverse;
        }
      }
    }
  }
}

TEST(FourBitRows, DecodeEveryPairOfCodes) {
  std::vector<uint8_t> packed(256);
  std::vector<float> want;
  for (size_t i = 0; i < 256; ++i) {
    packed[i] = static_cast<uint8_t>(i);
    want.push_back(Fp4Codebook()[i >> 4]);
    want.push_back(Fp4Codebook()[i & 15]);
  }
  for (const FourBitRow& row : FourBitRows()) {
    std::vector<float> values(512);
    row.decode(packed.data(), 512, Fp4Codebook().data(), values.data());
    EXPECT_EQ(values, want) << row.name;
  }
}

TEST(FourBitRows, TheFastestIsTheLast) {
  const std::vector<FourBitRow> rows = FourBitRows();
  EXPECT_STREQ(rows.front().name, "baseline");
  EXPECT_STREQ(FastestFourBitRow().name, rows.back().name);
}

}  // namespace
}  // namespace nibble
