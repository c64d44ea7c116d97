// INT8 rows against what bitsandbytes made of awkward matrices (tests/golden/int8), and what is
// refused.
#include "kernels/int8.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/half.h"
#include "tests/kernels/int8_golden.h"

namespace nibble {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

Int8Matrix Quantized(const std::vector<float>& values, int64_t n, int64_t k) {
  Int8Matrix matrix = MakeInt8Matrix(n, k);
  const absl::Status status = QuantizeInt8(0, values, &matrix);
  EXPECT_TRUE(status.ok()) << status;
  return matrix;
}

TEST(Int8Golden, CodesAndScalesAreThoseOfBitsandbytes) {
  for (const QuantizeGolden& golden : ReadInt8Goldens().quantize) {
    const Int8Matrix matrix = Quantized(golden.values, golden.n, golden.k);
    EXPECT_EQ(matrix.codes, golden.codes) << golden.name;
    EXPECT_EQ(Bits(matrix.absmax), Bits(golden.absmax)) << golden.name;
  }
}

TEST(Int8Golden, DequantizedValuesAreThoseOfBitsandbytes) {
  for (const QuantizeGolden& golden : ReadInt8Goldens().quantize) {
    const Int8Matrix matrix = {golden.n, golden.k, golden.codes, golden.absmax};
    std::vector<float> values(golden.values.size());
    DequantizeInt8(matrix, 0, values);
    EXPECT_EQ(Bits(values), Bits(golden.dequantized)) << golden.name;
  }
}

TEST(QuantizeInt8, GivesTheCodesWorkedOutByHand) {
  const Int8Matrix matrix = Quantized({1, -2, 3, 0.5f}, 1, 4);
  EXPECT_THAT(matrix.codes, ElementsAre(42, -85, 127, 21));
  EXPECT_THAT(matrix.absmax, ElementsAre(3.0f));
}

// Every fp16 value and the fp32 values around each of fp16's own ties.
TEST(QuantizeInt8, RoundsEveryValueToFp16First) {
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 0x7bffu; ++bits) {
    const float low = F16ToF32(static_cast<uint16_t>(bits));
    const float high = F16ToF32(static_cast<uint16_t>(bits + 1));
    const float tie = low + (high - low) / 2;
    for (const float value : {low, std::nextafter(tie, 0.0f), tie, std::nextafter(tie, high)}) {
      values.push_back(value);
      values.push_back(-value);
    }
  }
  const auto count = static_cast<int64_t>(values.size());
  const Int8Matrix singles = Quantized(values, count, 1);
  std::vector<float> rounded;
  for (size_t i = 0; i < values.size(); ++i) {
    rounded.push_back(F16ToF32(F32ToF16(values[i])));
    ASSERT_EQ(singles.absmax[i], std::abs(rounded[i])) << values[i];
  }
  for (const float absmax : {65504.0f, 1.0f, 0x1p-14f}) {
    std::vector<float> row = {absmax}, rounded_row = {absmax};
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::abs(rounded[i]) > absmax) continue;
      row.push_back(values[i]);
      rounded_row.push_back(rounded[i]);
    }
    const auto k = static_cast<int64_t>(row.size());
    const Int8Matrix got = Quantized(row, 1, k), want = Quantized(rounded_row, 1, k);
    EXPECT_EQ(got.codes, want.codes) << absmax;
    for (size_t i = 0; i < row.size(); ++i) {
      ASSERT_EQ(got.codes[i], std::nearbyint(rounded_row[i] * (127.0f / absmax))) << row[i];
    }
  }
}

TEST(QuantizeInt8, ARowOfZerosHasScaleAndCodesZero) {
  const Int8Matrix matrix = Quantized({0.0f, -0.0f, 1e-9f, -1e-9f, 1, 2, 3, 4}, 2, 4);
  EXPECT_EQ(std::bit_cast<uint32_t>(matrix.absmax[0]), 0u);
  EXPECT_THAT(std::vector<int8_t>(matrix.codes.begin(), matrix.codes.begin() + 4), Each(0));
}

TEST(QuantizeInt8, RowsQuantizedByManyThreadsAreTheSame) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const int64_t n = 40, k = 333;
  std::vector<float> values(static_cast<size_t>(n * k));
  for (float& value : values) value = normal(random);
  const Int8Matrix whole = Quantized(values, n, k);
  Int8Matrix parts = MakeInt8Matrix(n, k);
  std::vector<std::thread> threads;
  for (int64_t row = 0; row < n; row += 10) {
    threads.emplace_back([&, row] {
      const std::span<const float> slice(values.data() + row * k, static_cast<size_t>(10 * k));
      EXPECT_TRUE(QuantizeInt8(row, slice, &parts).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(parts.codes, whole.codes);
  EXPECT_EQ(parts.absmax, whole.absmax);
}

TEST(QuantizeInt8, RefusesWhatFp16CannotHoldByItsIndex) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), -std::nanf(""), inf, -inf, 65520.0f, -1e30f}) {
    std::vector<float> values(12, 1.0f);
    values[9] = bad;
    values[11] = bad;
    Int8Matrix matrix = MakeInt8Matrix(3, 4);
    const absl::Status status = QuantizeInt8(0, values, &matrix);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("value 9 is")) << bad;
  }
  Int8Matrix matrix = MakeInt8Matrix(1, 1);
  EXPECT_TRUE(QuantizeInt8(0, std::vector<float>{std::nextafter(65520.0f, 0.0f)}, &matrix).ok());
  EXPECT_EQ(matrix.absmax[0], 65504.0f);
}

TEST(QuantizeInt8DeathTest, AbortsOnValuesThatAreNoRows) {
  Int8Matrix matrix = MakeInt8Matrix(2, 4);
  const std::vector<float> values(8, 1.0f);
  EXPECT_DEATH((void)QuantizeInt8(0, std::span(values).first(7), &matrix), "no rows of a matrix");
  EXPECT_DEATH((void)QuantizeInt8(1, values, &matrix), "no rows of a matrix");
}

}  // namespace
}  // namespace nibble
