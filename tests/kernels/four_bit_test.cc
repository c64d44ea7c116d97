// NF4 against what bitsandbytes made of awkward matrices (tests/golden/nf4), and against the
// numbered golden values of the format.
#include "kernels/four_bit.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <random>
#include <span>
#include <sstream>
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
                       bool double_quant) {
  absl::StatusOr<FourBitMatrix> matrix =
      QuantizeFourBit(values, n, k, {.group_size = group_size, .double_quant = double_quant});
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

// --- tests/golden/nf4 ---

// Reads one array after another from a golden file.
class Golden {
 public:
  explicit Golden(const std::string& name) {
    std::ifstream file(std::string(NIBBLE_SOURCE_DIR "/tests/golden/nf4/") + name,
                       std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

  template <typename T>
  std::vector<T> Take(int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    const size_t size = values.size() * sizeof(T);
    if (size > bytes_.size() - at_) {
      ADD_FAILURE() << "golden file is too short";
      return values;
    }
    std::memcpy(values.data(), bytes_.data() + at_, size);
    at_ += size;
    return values;
  }

  bool AtEnd() const { return at_ == bytes_.size(); }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

struct Case {
  std::string name;
  int64_t n = 0;
  int64_t k = 0;
  int32_t group_size = 0;
  bool double_quant = false;
};

std::vector<Case> ReadIndex() {
  std::ifstream file(NIBBLE_SOURCE_DIR "/tests/golden/nf4/index.txt");
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    Case c;
    std::istringstream fields(line);
    fields >> c.name >> c.n >> c.k >> c.group_size >> c.double_quant;
    EXPECT_FALSE(fields.fail()) << line;
    cases.push_back(c);
  }
  return cases;
}

void ExpectNestedEqual(Golden& golden, const std::vector<float>& values, const Case& c,
                       FourBitMatrix* matrix) {
  const int64_t groups = matrix->NumGroups();
  const auto codes = golden.Take<uint8_t>(groups);
  const auto nested = golden.Take<float>((groups + kNestedGroup - 1) / kNestedGroup);
  const float offset = golden.Take<float>(1)[0];

  const FourBitMatrix own = Quantize(values, c.n, c.k, c.group_size, true);
  EXPECT_LE(std::abs(static_cast<int64_t>(Bits(own.nested_offset)) - Bits(offset)), 4);
  NestScales(offset, matrix);
  EXPECT_EQ(matrix->absmax_codes, codes);
  EXPECT_EQ(Bits(matrix->nested_absmax), Bits(nested));
  EXPECT_EQ(matrix->nested_map, DynamicMap());
  EXPECT_TRUE(matrix->absmax.empty());
}

TEST(Nf4, EqualsBitsandbytesBitForBit) {
  Golden golden("nf4.bin");
  const std::vector<Case> cases = ReadIndex();
  ASSERT_GE(cases.size(), 27u);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const auto values = golden.Take<float>(c.n * c.k);
    const auto codes = golden.Take<uint8_t>((c.n * c.k + 1) / 2);
    FourBitMatrix matrix = Quantize(values, c.n, c.k, c.group_size, false);
    EXPECT_EQ(matrix.codes, codes);
    if (c.double_quant) {
      ExpectNestedEqual(golden, values, c, &matrix);
    } else {
      EXPECT_EQ(Bits(matrix.absmax), Bits(golden.Take<float>(matrix.NumGroups())));
    }
    std::vector<float> dequantized(values.size());
    DequantizeFourBit(matrix, 0, dequantized);
    EXPECT_EQ(Bits(dequantized), Bits(golden.Take<float>(c.n * c.k)));
  }
  EXPECT_TRUE(golden.AtEnd());
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

TEST(Nf4, DynamicMapIsBitsandbytesFusedVariant) {
  Golden golden("dynamic_map.bin");
  const auto want = golden.Take<float>(256);
  const std::array<float, 256>& map = DynamicMap();
  EXPECT_EQ(Bits(std::vector<float>(map.begin(), map.end())), Bits(want));
  EXPECT_EQ(std::adjacent_find(map.begin(), map.end(), std::greater_equal<float>()), map.end())
      << "256 distinct ascending values";
  EXPECT_GT(map[0], -1.0f);
  const std::vector<std::pair<size_t, uint32_t>> spots = {
      {0, 0xbf7e3333},   {1, 0xbf7a999a},   {126, 0xb513a3b7}, {127, 0x00000000},
      {128, 0x3513a3b7}, {129, 0x365a1a94}, {254, 0x3f7e3333}, {255, 0x3f800000}};
  for (const auto& [index, bits] : spots) EXPECT_EQ(Bits(map[index]), bits) << index;
}

TEST(Nf4, DynamicCodeMovesNineEntriesOfTheMapAsBitsandbytesDoes) {
  Golden golden("dynamic_map.bin");
  golden.Take<float>(256);
  const auto want = golden.Take<uint8_t>(256);
  ASSERT_TRUE(golden.AtEnd());
  int moved = 0;
  for (size_t i = 0; i < 256; ++i) {
    EXPECT_EQ(DynamicCode(DynamicMap()[i]), want[i]) << i;
    if (want[i] != i) ++moved;
  }
  EXPECT_EQ(moved, 9);
  EXPECT_EQ(DynamicCode(0.0f), 131);
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

}  // namespace
}  // namespace nibble
