// The packed layout: its bytes, exactly, and what it refuses.
#include "kernels/cpu/packing.h"

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
}

TEST(PackedBytes, PadRowsTo16AndKTo8) {
  EXPECT_EQ(PackedBytesOf(Nf4Spec(17, 9, 64, false)).codes, 32 * 16 / 2);
  EXPECT_EQ(PackedBytesOf({WeightFormat::kBf16, 17, 9, 64, false}).codes, 32 * 9 * 2);
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
  matrix.nested_map[7] += 1;
  Weight weight = {Nf4Spec(16, 64, 64, true), nullptr, nullptr, nullptr};
  EXPECT_EQ(cpu->PackFourBit(matrix, &weight).code(), absl::StatusCode::kInvalidArgument);
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
