// Every 16-bit pattern, and every point where rounding turns, checked against plain double
// arithmetic.
#include "kernels/half.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// The meaning of an fp16 pattern by its definition, for finite values.
double F16Value(uint16_t half) {
  const int exponent = (half >> 10) & 0x1f;
  const int fraction = half & 0x3ff;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

bool IsF16Finite(uint32_t half) { return (half & 0x7c00) != 0x7c00; }
bool IsBf16Finite(uint32_t half) { return (half & 0x7f80) != 0x7f80; }

TEST(F16, WidensEveryFinitePatternExactly) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    if (!IsF16Finite(h)) continue;
    const auto half = static_cast<uint16_t>(h);
    const float got = F16ToF32(half);
    ASSERT_EQ(static_cast<double>(got), F16Value(half)) << std::hex << h;
    ASSERT_EQ(std::signbit(got), (h & 0x8000) != 0) << std::hex << h;
  }
}

TEST(F16, WidensInfinityAndQuietsNan) {
  EXPECT_EQ(F16ToF32(0x7c00), kInf);
  EXPECT_EQ(F16ToF32(0xfc00), -kInf);
  EXPECT_EQ(std::bit_cast<uint32_t>(F16ToF32(0x7c01)), 0x7fc02000u);
  EXPECT_EQ(std::bit_cast<uint32_t>(F16ToF32(0xfe55)), 0xffcaa000u);
}

TEST(F16, RoundTripsEveryPattern) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const bool nan = !IsF16Finite(h) && (h & 0x3ff) != 0;
    const uint32_t want = nan ? h | 0x200 : h;
    ASSERT_EQ(F32ToF16(F16ToF32(static_cast<uint16_t>(h))), want) << std::hex << h;
  }
}

// Between two neighbours the midpoint is exact in fp32; everything below it goes down, everything
// above it up, and the midpoint to the even one. Conversion is monotone between such points.
TEST(F16, RoundsToNearestEvenAtEveryMidpoint) {
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const auto low = static_cast<uint16_t>(h);
    const double next = h == 0x7bff ? 65536.0 : F16Value(static_cast<uint16_t>(h + 1));
    const auto middle = static_cast<float>((F16Value(low) + next) / 2);
    const uint32_t even = (h & 1) != 0 ? h + 1 : h;
    ASSERT_EQ(F32ToF16(std::nextafter(middle, 0.0f)), h) << std::hex << h;
    ASSERT_EQ(F32ToF16(middle), even) << std::hex << h;
    ASSERT_EQ(F32ToF16(std::nextafter(middle, kInf)), h + 1) << std::hex << h;
    ASSERT_EQ(F32ToF16(-middle), even | 0x8000) << std::hex << h;
  }
}

TEST(F16, OverflowsToInfinityAndUnderflowsToSignedZero) {
  EXPECT_EQ(F32ToF16(65519.996f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00);
  EXPECT_EQ(F32ToF16(-1e30f), 0xfc00);
  EXPECT_EQ(F32ToF16(kInf), 0x7c00);
  EXPECT_EQ(F32ToF16(-kInf), 0xfc00);
  EXPECT_EQ(F32ToF16(-1e-40f), 0x8000);
  EXPECT_EQ(F32ToF16(-0.0f), 0x8000);
}

TEST(F16, NarrowsNanToQuietNanWithItsPayload) {
  EXPECT_EQ(F32ToF16(std::bit_cast<float>(0x7f800001u)), 0x7e00);
  EXPECT_EQ(F32ToF16(std::bit_cast<float>(0xffc0a000u)), 0xfe05);
}

TEST(Bf16, WidensByPuttingSixteenZeroBitsBehind) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    ASSERT_EQ(std::bit_cast<uint32_t>(Bf16ToF32(static_cast<uint16_t>(h))), h << 16);
  }
}

TEST(Bf16, RoundTripsEveryPattern) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const bool nan = !IsBf16Finite(h) && (h & 0x7f) != 0;
    const uint32_t want = nan ? h | 0x40 : h;
    ASSERT_EQ(F32ToBf16(Bf16ToF32(static_cast<uint16_t>(h))), want) << std::hex << h;
  }
}

TEST(Bf16, RoundsToNearestEvenAtEveryMidpoint) {
  for (uint32_t h = 0; h < 0x7f80; ++h) {
    const auto middle = std::bit_cast<float>((h << 16) | 0x8000u);
    const uint32_t even = (h & 1) != 0 ? h + 1 : h;
    ASSERT_EQ(F32ToBf16(std::bit_cast<float>((h << 16) | 0x7fffu)), h) << std::hex << h;
    ASSERT_EQ(F32ToBf16(middle), even) << std::hex << h;
    ASSERT_EQ(F32ToBf16(std::bit_cast<float>((h << 16) | 0x8001u)), h + 1) << std::hex << h;
    ASSERT_EQ(F32ToBf16(-middle), even | 0x8000) << std::hex << h;
  }
}

TEST(Bf16, NarrowsNanToQuietNanEvenWhenThePayloadIsLow) {
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x7f800001u)), 0x7fc0);
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0xffffffffu)), 0xffff);
}

TEST(Half, DispatchesByType) {
  EXPECT_EQ(HalfToF32(DType::kF16, 0x3c00), 1.0f);
  EXPECT_EQ(HalfToF32(DType::kBF16, 0x3f80), 1.0f);
  EXPECT_EQ(F32ToHalf(DType::kF16, 1.0f), 0x3c00);
  EXPECT_EQ(F32ToHalf(DType::kBF16, 1.0f), 0x3f80);
}

static_assert(F32ToF16(0.5f) == 0x3800 && F16ToF32(0x0001) == 0x1p-24f, "usable at compile time");

}  // namespace
}  // namespace nibble
