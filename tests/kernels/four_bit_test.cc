// The 4-bit formats against the numbered golden values of numerics' contract, and their edges.
// What bitsandbytes made of awkward matrices is four_bit_golden_test.cc's.
#include "kernels/four_bit.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/half.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }
float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
float Up(float value) { return std::nextafter(value, kInf); }
float Down(float value) { return std::nextafter(value, -kInf); }

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), [](float v) { return Bits(v); });
  return bits;
}

FourBitMatrix Quantize(const std::vector<float>& values, int64_t n, int64_t k, int32_t group_size,
                       bool double_quant, WeightFormat format = WeightFormat::kNf4) {
  absl::StatusOr<FourBitMatrix> matrix = QuantizeFourBit(
      values, n, k, {.format = format, .group_size = group_size, .double_quant = double_quant});
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return *std::move(matrix);
}

int Code(const FourBitMatrix& matrix, size_t i) {
  return i % 2 == 0 ? matrix.codes[i / 2] >> 4 : matrix.codes[i / 2] & 15;
}

std::vector<float> Normal(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// --- tables ---

TEST(Nf4, CodebookHasTheSixteenWordsInFp32AndBf16) {
  constexpr std::array<uint32_t, 16> kFp32 = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0,
                                              0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
                                              0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                                              0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
  constexpr std::array<uint16_t, 16> kBf16 = {0xbf80, 0xbf32, 0xbf06, 0xbeca, 0xbe92, 0xbe3d,
                                              0xbdba, 0x0000, 0x3da3, 0x3e25, 0x3e7c, 0x3ead,
                                              0x3ee2, 0x3f10, 0x3f39, 0x3f80};
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(Bits(Nf4Codebook()[i]), kFp32[i]) << i;
    EXPECT_EQ(F32ToBf16(Nf4Codebook()[i]), kBf16[i]) << i;
  }
}

TEST(Nf4, ThresholdsAreTheRoundedMidpoints) {
  constexpr std::array<uint32_t, 15> kFp32 = {0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76,
                                              0xbe703cec, 0xbe0d38bc, 0xbd3a7871, 0x3d22faff,
                                              0x3df64862, 0x3e5067e0, 0x3e9582d4, 0x3ec753f9,
                                              0x3f006d04, 0x3f248daf, 0x3f5c89da};
  for (size_t i = 0; i < 15; ++i) {
    EXPECT_EQ(Bits(Nf4Thresholds()[i]), kFp32[i]) << i;
    EXPECT_EQ(Nf4Thresholds()[i], (Nf4Codebook()[i] + Nf4Codebook()[i + 1]) / 2) << i;
  }
}

TEST(Nf4, TieAtAThresholdTakesTheLowerCode) {
  std::vector<float> values(64, 0.0f);
  values[0] = 1.0f;  // scale 1: the rest are their own scaled values
  for (size_t i = 0; i < 15; ++i) {
    values[1 + 3 * i] = Down(Nf4Thresholds()[i]);
    values[2 + 3 * i] = Nf4Thresholds()[i];
    values[3 + 3 * i] = Up(Nf4Thresholds()[i]);
  }
  const FourBitMatrix matrix = Quantize(values, 1, 64, 64, false);
  for (size_t i = 0; i < 15; ++i) {
    EXPECT_EQ(Code(matrix, 1 + 3 * i), static_cast<int>(i));
    EXPECT_EQ(Code(matrix, 2 + 3 * i), static_cast<int>(i));
    EXPECT_EQ(Code(matrix, 3 + 3 * i), static_cast<int>(i) + 1);
  }
}

TEST(Nf4, DynamicCodeClampsAndGivesNanTheLowestCode) {
  EXPECT_EQ(DynamicCode(-1.0f), 0);
  EXPECT_EQ(DynamicCode(-kInf), 0);
  EXPECT_EQ(DynamicCode(kNan), 0);
  EXPECT_EQ(DynamicCode(1.0f), 255);
  EXPECT_EQ(DynamicCode(kInf), 255);
}

TEST(Nf4, AllowsThePowersOfTwoFrom32To4096AsGroupSizes) {
  std::vector<int64_t> allowed;
  for (int64_t size = -4096; size <= 10000; ++size) {
    if (IsAllowedGroupSize(size)) allowed.push_back(size);
  }
  EXPECT_THAT(allowed, ElementsAre(32, 64, 128, 256, 512, 1024, 2048, 4096));
  EXPECT_FALSE(IsAllowedGroupSize(int64_t{1} << 32 | 64));
}

// --- quantizing ---

TEST(Nf4, QuantizesTheRamp) {
  std::vector<float> values(64);
  for (int i = 0; i < 64; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i - 32) / 32;
  const FourBitMatrix matrix = Quantize(values, 1, 64, 64, false);
  constexpr std::string_view kNibbles =
      "000001111111122222333344455566677788999aaabbbccccddddeeeeeeeffff";
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ("0123456789abcdef"[Code(matrix, i)], kNibbles[i]) << i;
  EXPECT_THAT(Bits(matrix.absmax), ElementsAre(0x3f800000u));
}

TEST(Nf4, MultipliesByTheReciprocalInFullGroupsAndDividesInTheShortOne) {
  const float absmax = FromBits(0x3f804000);
  const float value = FromBits(0x3f00ad3b);
  std::vector<float> values(66, 0.0f);
  values[0] = values[64] = absmax;
  values[1] = values[65] = value;
  const FourBitMatrix matrix = Quantize(values, 1, 66, 64, false);
  EXPECT_EQ(Code(matrix, 1), 13);
  EXPECT_EQ(Code(matrix, 65), 12);
}

TEST(Nf4, WritesZeroGroupsAsCodeSevenWithScaleZero) {
  const FourBitMatrix matrix = Quantize(std::vector<float>(70, -0.0f), 1, 70, 64, false);
  EXPECT_EQ(matrix.codes, std::vector<uint8_t>(35, 0x77));
  EXPECT_THAT(Bits(matrix.absmax), ElementsAre(0u, 0u));
}

TEST(Nf4, ClampsATinyScaleOnlyInTheShortGroup) {
  std::vector<float> values(65, 1e-40f);
  const FourBitMatrix matrix = Quantize(values, 1, 65, 64, false);
  EXPECT_THAT(Bits(matrix.absmax), ElementsAre(Bits(1e-40f), 0x006ce3eeu));
  EXPECT_EQ(Code(matrix, 0), 7) << "1e-40 / 1e-38 is nearest zero";
}

TEST(Nf4, ReadsBothFormsOfAZeroGroupAsZero) {
  FourBitMatrix matrix = Quantize(std::vector<float>(66, 0.0f), 1, 66, 64, false);
  std::vector<float> values(66, 1.0f);
  for (const uint8_t byte : {uint8_t{0x77}, uint8_t{0x00}}) {
    std::fill(matrix.codes.begin(), matrix.codes.end(), byte);
    DequantizeFourBit(matrix, 0, values);
    for (const float value : values) EXPECT_EQ(value, 0.0f);
  }
  matrix.absmax[1] = FromBits(0x006ce3ee);  // as bitsandbytes writes a zero short group
  matrix.codes.back() = 0x77;
  DequantizeFourBit(matrix, 64, std::span(values).first(2));
  EXPECT_THAT(std::vector<float>(values.begin(), values.begin() + 2), ElementsAre(0.0f, 0.0f));
}

TEST(Nf4, PadsAnOddCountWithCodeSeven) {
  const FourBitMatrix matrix = Quantize({1.0f, -1.0f, 1.0f}, 3, 1, 64, false);
  EXPECT_THAT(matrix.codes, ElementsAre(0xf0, 0xf7));
}

TEST(Nf4, StreamsSlicesFromManyThreadsIntoTheSameBits) {
  constexpr int64_t kN = 37;
  constexpr int64_t kK = 353;  // odd: every slice straddles rows
  for (const bool double_quant : {false, true}) {
    const std::vector<float> values = Normal(kN * kK, 7);
    const FourBitMatrix whole = Quantize(values, kN, kK, 128, double_quant);
    FourBitQuantizer quantizer(kN, kK, {.group_size = 128, .double_quant = double_quant});
    std::vector<std::thread> threads;
    for (int64_t thread = 0; thread < 3; ++thread) {
      threads.emplace_back([&, thread] {
        for (int64_t begin = thread * 512; begin < kN * kK; begin += 3 * 512) {
          const auto count = static_cast<size_t>(std::min<int64_t>(512, kN * kK - begin));
          EXPECT_TRUE(
              quantizer.Add(begin, std::span(values).subspan(static_cast<size_t>(begin), count))
                  .ok());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    const FourBitMatrix streamed = quantizer.Finish();
    EXPECT_EQ(streamed.codes, whole.codes);
    EXPECT_EQ(Bits(streamed.absmax), Bits(whole.absmax));
    EXPECT_EQ(streamed.absmax_codes, whole.absmax_codes);
    EXPECT_EQ(Bits(streamed.nested_absmax), Bits(whole.nested_absmax));
    EXPECT_EQ(Bits(streamed.nested_offset), Bits(whole.nested_offset));
    EXPECT_EQ(streamed.double_quant, double_quant);
  }
}

TEST(Nf4, RefusesNanAndInfByFlatIndex) {
  for (const float bad : {kNan, kInf, -kInf}) {
    for (const int64_t index : {0, 63, 64, 129}) {
      std::vector<float> values = Normal(130, 3);
      values[static_cast<size_t>(index)] = bad;
      values[129] = kNan;  // a later one is not the one reported
      const absl::Status status =
          QuantizeFourBit(values, 13, 10, {.group_size = 64, .double_quant = true}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("flat index " + std::to_string(index) + " is "));
    }
  }
}

TEST(Nf4, RefusalCountsFromTheMatrixNotTheSlice) {
  FourBitQuantizer quantizer(4, 64, {.group_size = 64, .double_quant = false});
  std::vector<float> values(64, 1.0f);
  values[5] = kInf;
  const absl::Status status = quantizer.Add(128, values);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("flat index 133 is inf"));
}

TEST(Nf4, AbortsOnASliceThatBreaksGroups) {
  std::vector<float> values(256, 1.0f);
  FourBitQuantizer quantizer(4, 64, {.group_size = 64, .double_quant = false});
  EXPECT_DEATH((void)quantizer.Add(32, std::span(values).first(64)), "begins with a group");
  EXPECT_DEATH((void)quantizer.Add(0, std::span(values).first(63)), "ends in a group");
  EXPECT_DEATH((void)quantizer.Add(64, values), "lies in its matrix");
  EXPECT_DEATH(FourBitQuantizer(4, 64, {.group_size = 48, .double_quant = false}), "group size");
}

// --- reading ---

TEST(Nf4, DequantizesByOneRounding) {
  struct Row {
    uint32_t fp32;
    uint16_t bf16, fp16;
  };
  constexpr std::array<Row, 16> kRows = {{{0xbdcccccd, 0xbdcd, 0xae66},
                                          {0xbd8e948e, 0xbd8f, 0xac75},
                                          {0xbd5711e7, 0xbd57, 0xaab9},
                                          {0xbd21c21a, 0xbd22, 0xa90e},
                                          {0xbce903af, 0xbce9, 0xa748},
                                          {0xbc975dcc, 0xbc97, 0xa4bb},
                                          {0xbc152d27, 0xbc15, 0xa0a9},
                                          {0x00000000, 0x0000, 0x0000},
                                          {0x3c026266, 0x3c02, 0x2013},
                                          {0x3c83d583, 0x3c84, 0x241f},
                                          {0x3cc99d7e, 0x3cca, 0x264d},
                                          {0x3d0a68fb, 0x3d0a, 0x2853},
                                          {0x3d3483c7, 0x3d35, 0x29a4},
                                          {0x3d6672ab, 0x3d66, 0x2b34},
                                          {0x3d940fc3, 0x3d94, 0x2ca0},
                                          {0x3dcccccd, 0x3dcd, 0x2e66}}};
  FourBitMatrix matrix;
  matrix.n = 1;
  matrix.k = 16;
  matrix.codes = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
  matrix.absmax = {0.1f};
  std::vector<float> values(16);
  DequantizeFourBit(matrix, 0, values);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(Bits(values[i]), kRows[i].fp32) << i;
    EXPECT_EQ(F32ToBf16(values[i]), kRows[i].bf16) << i;
    EXPECT_EQ(F32ToF16(values[i]), kRows[i].fp16) << i;
  }
}

TEST(Nf4, ReadsNestedScalesWithTwoRoundings) {
  FourBitMatrix matrix;
  matrix.n = 3;
  matrix.k = 64;
  matrix.double_quant = true;
  matrix.absmax_codes = {0, 1, 2};
  matrix.nested_absmax = {FromBits(0x3cf5c28f)};
  matrix.nested_offset = FromBits(0x3d4ccccd);
  matrix.nested_map = {FromBits(0xbeeacccc), FromBits(0xbe9b999a), 0.0f};
  EXPECT_EQ(Bits(GroupScale(matrix, 0)), 0x3d1472b0u);
  EXPECT_EQ(Bits(GroupScale(matrix, 1)), 0x3d2774bcu);
  EXPECT_EQ(Bits(GroupScale(matrix, 2)), 0x3d4ccccdu);
}

TEST(Nf4, TakesTheScaleOfEachNestedGroupFromItsOwn) {
  const std::vector<float> values = Normal(32 * 600, 5);
  const FourBitMatrix plain = Quantize(values, 600, 32, 32, false);
  const FourBitMatrix nested = Quantize(values, 600, 32, 32, true);
  ASSERT_EQ(nested.nested_absmax.size(), 3u);
  for (int64_t group = 0; group < 600; ++group) {
    // Neighbouring entries of the map are at most 0.9 / 64 apart, so the nearest is within half.
    const float bound = nested.nested_absmax[static_cast<size_t>(group / 256)] * 0.00705f;
    EXPECT_NEAR(GroupScale(nested, group), plain.absmax[static_cast<size_t>(group)], bound)
        << group;
  }
}

TEST(Nf4, DequantizesAnySliceAlike) {
  const std::vector<float> source = Normal(3 * 67, 11);
  const FourBitMatrix matrix = Quantize(source, 3, 67, 32, true);
  std::vector<float> whole(source.size());
  DequantizeFourBit(matrix, 0, whole);
  for (size_t begin = 0; begin < whole.size(); begin += 7) {
    for (const size_t count : {size_t{0}, size_t{1}, size_t{40}}) {
      const size_t size = std::min(count, whole.size() - begin);
      std::vector<float> slice(size);
      DequantizeFourBit(matrix, static_cast<int64_t>(begin), slice);
      const auto first = whole.begin() + static_cast<std::ptrdiff_t>(begin);
      EXPECT_TRUE(std::equal(slice.begin(), slice.end(), first)) << begin << " + " << size;
    }
  }
}

TEST(Nf4, QuantizesWhatItReadToTheSameBits) {
  for (const int32_t group_size : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    // A group's largest value has code 0 or 15, so reading gives back the scale exactly, and every
    // code's value lies between its own thresholds.
    const std::vector<float> source = Normal(11 * 911, static_cast<uint32_t>(group_size));
    const FourBitMatrix matrix = Quantize(source, 11, 911, group_size, false);
    std::vector<float> values(source.size());
    DequantizeFourBit(matrix, 0, values);
    const FourBitMatrix again = Quantize(values, 11, 911, group_size, false);
    EXPECT_EQ(again.codes, matrix.codes) << group_size;
    EXPECT_EQ(Bits(again.absmax), Bits(matrix.absmax)) << group_size;
  }
}

// --- FP4 ---

TEST(Fp4, CodebookHasTheSixteenWords) {
  constexpr std::array<uint32_t, 8> kFp32 = {0x00000000, 0x3baaaaab, 0x3f2aaaab, 0x3f800000,
                                             0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000};
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(Bits(Fp4Codebook()[i]), kFp32[i]) << i;
    EXPECT_EQ(Bits(Fp4Codebook()[i + 8]), i == 0 ? 0u : kFp32[i] | 0x80000000u) << i;
  }
  EXPECT_EQ(&CodebookOf(WeightFormat::kFp4), &Fp4Codebook());
  EXPECT_EQ(&CodebookOf(WeightFormat::kNf4), &Nf4Codebook());
}

// The codes below and above each midpoint of the sorted codebook, a tie going down.
TEST(Fp4, TieAtAMidpointGoesDown) {
  struct Edge {
    uint32_t midpoint;
    int below, above;
  };
  constexpr std::array<Edge, 15> kEdges = {{{0xbf555556, 11, 10},
                                            {0xbf155556, 10, 13},
                                            {0xbed55556, 13, 12},
                                            {0xbe955556, 12, 15},
                                            {0xbe555556, 15, 14},
                                            {0xbdb00000, 14, 9},
                                            {0xbb2aaaab, 9, 0},
                                            {0x00000000, 0, 8},
                                            {0x3b2aaaab, 8, 1},
                                            {0x3db00000, 1, 6},
                                            {0x3e555556, 6, 7},
                                            {0x3e955556, 7, 4},
                                            {0x3ed55556, 4, 5},
                                            {0x3f155556, 5, 2},
                                            {0x3f555556, 2, 3}}};
  std::vector<float> values(64, 0.0f);
  values[0] = 1.0f;  // scale 1: the rest are their own scaled values
  for (size_t i = 0; i < 15; ++i) {
    const float midpoint = FromBits(kEdges[i].midpoint);
    values[1 + 3 * i] = Down(midpoint);
    values[2 + 3 * i] = midpoint;
    values[3 + 3 * i] = Up(midpoint);
  }
  const FourBitMatrix matrix = Quantize(values, 1, 64, 64, false, WeightFormat::kFp4);
  for (size_t i = 0; i < 15; ++i) {
    EXPECT_EQ(Code(matrix, 1 + 3 * i), kEdges[i].below) << i;
    EXPECT_EQ(Code(matrix, 2 + 3 * i), kEdges[i].below) << i;
    EXPECT_EQ(Code(matrix, 3 + 3 * i), kEdges[i].above) << i;
  }
}

TEST(Fp4, WritesBothZerosAndTinyNegativesAsZeroAndTinyPositivesAsEight) {
  std::vector<float> values(64, 0.0f);
  values[0] = 1.0f;
  values[1] = -0.0f;
  values[2] = 1e-9f;
  values[3] = -1e-9f;
  const FourBitMatrix matrix = Quantize(values, 1, 64, 64, false, WeightFormat::kFp4);
  EXPECT_EQ(matrix.codes[0], 0x30);
  EXPECT_EQ(matrix.codes[1], 0x80);
  EXPECT_EQ(matrix.codes[2], 0x00);
  std::vector<float> read(64);
  DequantizeFourBit(matrix, 0, read);
  EXPECT_EQ(Bits(read[2]), 0u);
}

TEST(Fp4, QuantizesTheRamp) {
  // Written for CUDA's thresholds; none of the ramp's values lies between those and the CPU path's.
  std::vector<float> values(64);
  for (int i = 0; i < 64; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i - 32) / 32;
  const FourBitMatrix matrix = Quantize(values, 1, 64, 64, false, WeightFormat::kFp4);
  constexpr std::string_view kNibbles =
      "bbbbbbaaaaaaaadddddccccfffeeee9901166667774444555552222222233333";
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ("0123456789abcdef"[Code(matrix, i)], kNibbles[i]) << i;
}

TEST(Fp4, PadsAnOddCountAndFillsZeroGroupsWithCodeZero) {
  EXPECT_THAT(Quantize({1.0f, -1.0f, 1.0f}, 3, 1, 64, false, WeightFormat::kFp4).codes,
              ElementsAre(0x3b, 0x30));
  const FourBitMatrix zeros =
      Quantize(std::vector<float>(71, -0.0f), 1, 71, 64, false, WeightFormat::kFp4);
  EXPECT_EQ(zeros.codes, std::vector<uint8_t>(36, 0x00));
  EXPECT_THAT(Bits(zeros.absmax), ElementsAre(0u, 0u));
}

TEST(Fp4, QuantizesWhatItReadToTheSameValues) {
  for (const int32_t group_size : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    const std::vector<float> source = Normal(11 * 911, static_cast<uint32_t>(group_size));
    const FourBitMatrix matrix = Quantize(source, 11, 911, group_size, false, WeightFormat::kFp4);
    std::vector<float> values(source.size());
    DequantizeFourBit(matrix, 0, values);
    const FourBitMatrix again = Quantize(values, 11, 911, group_size, false, WeightFormat::kFp4);
    std::vector<float> reread(source.size());
    DequantizeFourBit(again, 0, reread);
    EXPECT_EQ(Bits(reread), Bits(values)) << group_size;
  }
}

// --- tables of a matrix's own ---

TEST(FourBitMatrix, NeedsOwnTablesWhenABitDiffersButNotAZerosSign) {
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    for (const bool double_quant : {false, true}) {
      const FourBitMatrix matrix = Quantize(Normal(256, 1), 1, 256, 64, double_quant, format);
      EXPECT_FALSE(NeedsOwnTables(matrix));

      FourBitMatrix changed = matrix;
      changed.codebook[3] = Up(changed.codebook[3]);
      EXPECT_TRUE(NeedsOwnTables(changed));

      changed = matrix;
      changed.codebook[format == WeightFormat::kNf4 ? 7 : 8] = -0.0f;
      EXPECT_FALSE(NeedsOwnTables(changed)) << "bitsandbytes writes FP4's code 8 as either zero";

      changed = matrix;
      changed.nested_map[89] = Up(changed.nested_map[89]);
      EXPECT_EQ(NeedsOwnTables(changed), double_quant) << "a plain matrix has no map";

      changed = matrix;
      changed.codebook[15] = kNan;
      EXPECT_TRUE(NeedsOwnTables(changed));
    }
  }
}

}  // namespace
}  // namespace nibble
