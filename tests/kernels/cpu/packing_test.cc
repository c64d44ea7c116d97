// The packed layout: its bytes, exactly, and what it refuses.
#include "kernels/cpu/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

WeightSpec Nf4Spec(int64_t n, int64_t k, int32_t group_size, bool double_quant) {
  return {WeightFormat::kNf4, n, k, group_size, double_quant};
}

TEST(PackedBytes, AreExactlyTheCheckpointsForUnpaddedShapes) {
  for (const int64_t n : {16, 192, 576, 4096}) {
    for (const int64_t k : {64, 576, 1536}) {
      for (const int32_t group_size : {32, 64, 128, 256}) {
        const int64_t groups = CeilDiv(n * k, group_size);
        const PackedSize plain = PackedBytesOf(Nf4Spec(n, k, group_size, false));
        EXPECT_EQ(plain.codes, n * k / 2);
        EXPECT_EQ(plain.scales, groups * 4);
        EXPECT_EQ(plain.nested, 0);
        const PackedSize nested = PackedBytesOf(Nf4Spec(n, k, group_size, true));
        EXPECT_EQ(nested.codes, n * k / 2);
        EXPECT_EQ(nested.scales, groups);
        EXPECT_EQ(nested.nested, CeilDiv(groups, 256) * 4 + 4);
      }
    }
  }
  EXPECT_EQ(PackedBytesOf({WeightFormat::kF16, 48, 100, 64, false}).codes, 48 * 100 * 2);
  const PackedSize int8 = PackedBytesOf({.format = WeightFormat::kInt8, .n = 48, .k = 100});
  EXPECT_EQ(int8.codes, 48 * 100);
  EXPECT_EQ(int8.scales, 48 * 4);
  EXPECT_EQ(int8.Total(), 48 * 100 + 48 * 4);
}

TEST(PackedBytes, CountOwnTables) {
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    EXPECT_EQ(PackedBytesOf({format, 16, 64, 64, false, false}).tables, 0);
    EXPECT_EQ(PackedBytesOf({format, 16, 64, 64, true, false}).tables, 0);
    EXPECT_EQ(PackedBytesOf({format, 16, 64, 64, false, true}).tables, 64);
    EXPECT_EQ(PackedBytesOf({format, 16, 64, 64, true, true}).tables, 64 + 1024);
  }
}

TEST(PackedBytes, PadRowsTo16AndKToALine) {
  EXPECT_EQ(PackedBytesOf(Nf4Spec(17, 9, 64, false)).codes, 32 * 16 / 2);
  EXPECT_EQ(PackedBytesOf({WeightFormat::kBf16, 17, 9, 64, false}).codes, 32 * 9 * 2);
  const PackedSize int8 = PackedBytesOf({.format = WeightFormat::kInt8, .n = 17, .k = 9});
  EXPECT_EQ(int8.codes, 32 * 12);
  EXPECT_EQ(int8.scales, 32 * 4);
}

TEST(PanelWidth, DividesThePanelsIfAnythingFrom5To8Does) {
  EXPECT_EQ(PanelWidth(576), 6);
  EXPECT_EQ(PanelWidth(192), 6);
  EXPECT_EQ(PanelWidth(4096), 8);
  EXPECT_EQ(PanelWidth(16 * 43), 8);
}

// Code and scale of every element, found where packing.h says they lie.
TEST(PackFourBit, PutsEveryCodeAndScaleWhereTheGrammarSays) {
  for (const auto& [n, k] :
       {std::pair<int64_t, int64_t>{100, 64}, {33, 128}, {19, 77}, {688, 32}}) {
    Random random(1);
    const FourBitMatrix matrix =
        *QuantizeFourBit(random.Normals(n * k), n, k, {.group_size = 32, .double_quant = false});
    const std::unique_ptr<Backend> cpu = Cpu("", 1);
    const PackedMatrix packed(*cpu, matrix);
    const auto* codes = static_cast<const uint32_t*>(packed.weight().codes);
    const auto* scales = static_cast<const float*>(packed.weight().scales);
    const int64_t panels = CeilDiv(n, 16), width = PanelWidth(n), lines = CeilDiv(k, 8);
    for (int64_t row = 0; row < n; ++row) {
      const int64_t first = row / 16 / width * width;
      const int64_t side = std::min(width, panels - first);
      const int64_t place = row / 16 - first;
      for (int64_t i = 0; i < k; ++i) {
        const int64_t flat = row * k + i;
        const uint8_t byte = matrix.codes[static_cast<size_t>(flat / 2)];
        const int64_t line = (first * lines + i / 8 * side + place) * 16;
        ASSERT_EQ(codes[line + row % 16] >> (4 * (i % 8)) & 15u,
                  flat % 2 == 0 ? byte >> 4 : byte & 15u);
        const int64_t group =
            k % 32 != 0 ? flat / 32 : (first * (k / 32) + i / 32 * side + place) * 16 + row % 16;
        ASSERT_EQ(scales[group], matrix.absmax[static_cast<size_t>(flat / 32)]);
      }
    }
  }
}

TEST(PackFourBit, RefusesWhatIsNotTheWeights) {
  Random random(2);
  const std::vector<float> values = random.Normals(16 * 64);
  FourBitMatrix matrix = *QuantizeFourBit(values, 16, 64, {.group_size = 64, .double_quant = true});
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  for (const WeightSpec& spec :
       {Nf4Spec(32, 64, 64, true), Nf4Spec(16, 128, 64, true), Nf4Spec(16, 64, 32, true),
        Nf4Spec(16, 64, 64, false), WeightSpec{WeightFormat::kF16, 16, 64, 64, true}}) {
    Weight weight = {spec, nullptr, nullptr, nullptr};
    EXPECT_EQ(cpu->PackFourBit(matrix, &weight).code(), absl::StatusCode::kInvalidArgument);
  }
  Weight weight = {Nf4Spec(16, 64, 64, true)};
  const auto expect_refused = [&](const FourBitMatrix& refused, const char* why) {
    const absl::Status status = cpu->PackFourBit(refused, &weight);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(why));
  };
  FourBitMatrix other = matrix;
  other.nested_map[7] += 1;
  expect_refused(other, "nested map of its own");
  other = matrix;
  other.codebook[15] = 1.5f;
  expect_refused(other, "codebook or nested map of its own");
  other = matrix;
  other.format = WeightFormat::kFp4;
  other.codebook = CodebookOf(WeightFormat::kFp4);
  expect_refused(other, "got fp4 [16,64]");
  other = matrix;
  other.codes.pop_back();
  expect_refused(other, "wrong lengths");
  other = matrix;
  other.absmax_codes.push_back(0);
  expect_refused(other, "wrong lengths");
  other = matrix;
  other.nested_absmax.clear();
  expect_refused(other, "wrong lengths");
}

// The awkward: odd counts, rows and groups that fit nothing, one value, more than one nested group.
const std::pair<int64_t, int64_t> kAwkward[] = {{1, 1},    {3, 3},   {19, 77}, {16, 64},
                                                {33, 128}, {7, 172}, {5, 200}, {100, 64},
                                                {61, 320}, {688, 32}};

void ExpectSame(const FourBitMatrix& got, const FourBitMatrix& want, const std::string& what) {
  EXPECT_EQ(got.format, want.format) << what;
  EXPECT_EQ(got.n, want.n) << what;
  EXPECT_EQ(got.k, want.k) << what;
  EXPECT_EQ(got.group_size, want.group_size) << what;
  EXPECT_EQ(got.double_quant, want.double_quant) << what;
  EXPECT_EQ(got.codes, want.codes) << what;
  EXPECT_EQ(got.absmax, want.absmax) << what;
  EXPECT_EQ(got.absmax_codes, want.absmax_codes) << what;
  EXPECT_EQ(got.nested_absmax, want.nested_absmax) << what;
  EXPECT_EQ(got.nested_offset, want.nested_offset) << what;
  EXPECT_EQ(got.codebook, want.codebook) << what;
  EXPECT_EQ(got.nested_map, want.nested_map) << what;
}

class Unpack : public testing::TestWithParam<std::tuple<WeightFormat, bool, bool>> {};

TEST_P(Unpack, GivesBackTheCheckpointsBytesOfAnyFourBitMatrix) {
  const auto [format, double_quant, own_tables] = GetParam();
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  for (const auto& [n, k] : kAwkward) {
    for (const int32_t group_size : {32, 64, 128, 4096}) {
      Random random(4);
      FourBitMatrix matrix =
          *QuantizeFourBit(random.Normals(n * k), n, k, {format, group_size, double_quant});
      if (own_tables) matrix.codebook[3] += 0.1f;
      if (own_tables && double_quant) matrix.nested_map[200] += 0.1f;
      const PackedMatrix packed(*cpu, matrix);
      ASSERT_EQ(packed.weight().spec.own_tables, own_tables);
      ExpectSame(UnpackFourBitMatrix(packed.weight()), matrix,
                 absl::StrCat("[", n, ",", k, "] group ", group_size));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, Unpack,
                         testing::Combine(testing::Values(WeightFormat::kNf4, WeightFormat::kFp4),
                                          testing::Bool(), testing::Bool()));

TEST(UnpackInt8, GivesBackTheCheckpointsBytesOfAnyMatrix) {
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  for (const auto& [n, k] : kAwkward) {
    Random random(5);
    Int8Matrix matrix = MakeInt8Matrix(n, k);
    for (int8_t& code : matrix.codes) code = static_cast<int8_t>(random.Below(256) - 128);
    matrix.absmax = random.Normals(n);
    const PackedMatrix packed(*cpu, matrix, 6);
    const Int8Matrix got = UnpackInt8Matrix(packed.weight());
    EXPECT_EQ(got.n, n);
    EXPECT_EQ(got.k, k);
    EXPECT_EQ(got.codes, matrix.codes);
    EXPECT_EQ(got.absmax, matrix.absmax);
  }
}

TEST(PackInt8, PutsEveryCodeAndScaleWhereTheGrammarSaysAndZerosElsewhere) {
  for (const auto& [n, k] : kAwkward) {
    Random random(6);
    Int8Matrix matrix = MakeInt8Matrix(n, k);
    for (int8_t& code : matrix.codes) code = static_cast<int8_t>(random.Below(256) - 128);
    matrix.absmax = random.Normals(n);
    const std::unique_ptr<Backend> cpu = Cpu("", 1);
    const PackedMatrix packed(*cpu, matrix, 6);
    const auto* codes = static_cast<const int8_t*>(packed.weight().codes);
    const auto* scales = static_cast<const float*>(packed.weight().scales);
    const int64_t panels = CeilDiv(n, 16), width = PanelWidth(n), lines = CeilDiv(k, 4);
    for (int64_t row = 0; row < panels * 16; ++row) {
      ASSERT_EQ(scales[row], row < n ? matrix.absmax[static_cast<size_t>(row)] : 0.0f);
      const int64_t first = row / 16 / width * width;
      const int64_t side = std::min(width, panels - first);
      for (int64_t i = 0; i < lines * 4; ++i) {
        const int64_t line = first * lines + i / 4 * side + row / 16 - first;
        const bool exists = row < n && i < k;
        ASSERT_EQ(codes[line * 64 + row % 16 * 4 + i % 4],
                  exists ? matrix.codes[static_cast<size_t>(row * k + i)] : 0);
      }
    }
  }
}

TEST(PackInt8, RefusesWhatIsNotTheWeights) {
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const auto code_of = [&](const Int8Matrix& matrix, const WeightSpec& spec) {
    Weight weight = {spec};
    return cpu->PackInt8(matrix, &weight).code();
  };
  const WeightSpec spec = {.format = WeightFormat::kInt8, .n = 16, .k = 64};
  Int8Matrix matrix = MakeInt8Matrix(16, 64);
  for (const WeightSpec& other : {WeightSpec{.format = WeightFormat::kInt8, .n = 32, .k = 64},
                                  WeightSpec{.format = WeightFormat::kInt8, .n = 16, .k = 32},
                                  WeightSpec{.format = WeightFormat::kNf4, .n = 16, .k = 64}}) {
    EXPECT_EQ(code_of(matrix, other), absl::StatusCode::kInvalidArgument);
  }
  matrix.codes.pop_back();
  EXPECT_EQ(code_of(matrix, spec), absl::StatusCode::kInvalidArgument);
  matrix = MakeInt8Matrix(16, 64);
  matrix.absmax.push_back(1);
  EXPECT_EQ(code_of(matrix, spec), absl::StatusCode::kInvalidArgument);
  Weight wide = {{.format = WeightFormat::kInt8, .n = 1, .k = kMaxInt8Columns + 1}};
  const absl::Status status = cpu->PackInt8(MakeInt8Matrix(1, kMaxInt8Columns + 1), &wide);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("at most 132104 columns"));
}

TEST(Pack16, SlicesInAnyCutGiveTheWholesBytes) {
  Random random(3);
  const int64_t n = 53, k = 20;
  const std::vector<uint16_t> values = ToHalves(WeightFormat::kF16, random.Normals(n * k));
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const PackedMatrix whole(*cpu, WeightFormat::kF16, n, k, values);
  const int64_t bytes = PackedBytesOf(whole.weight().spec).codes;
  for (const int64_t cut : {1, 7, 16, 40}) {
    std::vector<uint8_t> memory(static_cast<size_t>(bytes), 0xee);
    Weight weight = {whole.weight().spec, memory.data(), nullptr, nullptr};
    for (int64_t row = 0; row < n; row += cut) {
      const int64_t count = std::min(cut, n - row);
      ASSERT_TRUE(cpu->Pack16(row, count, values.data() + row * k, &weight).ok());
    }
    EXPECT_EQ(std::memcmp(memory.data(), whole.weight().codes, memory.size()), 0) << cut;
  }
}

TEST(Pack16, RefusesRowsBeyondTheMatrix) {
  Weight weight = {{WeightFormat::kF16, 4, 2, 64, false}, nullptr, nullptr, nullptr};
  const uint16_t values[20] = {};
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  EXPECT_EQ(cpu->Pack16(3, 2, values, &weight).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cpu->Pack16(-1, 1, values, &weight).code(), absl::StatusCode::kInvalidArgument);
  weight.spec.format = WeightFormat::kNf4;
  EXPECT_EQ(cpu->Pack16(0, 1, values, &weight).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
