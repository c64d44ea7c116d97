// The polynomials of the ISA rows against the C library in double, and every function of a row
// against the scalar row, bit by bit, with tails of every length.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

double UlpOf(double value) {
  const auto magnitude = static_cast<float>(std::abs(value));
  return double{std::nextafter(magnitude, std::numeric_limits<float>::infinity())} -
         double{magnitude};
}

std::vector<float> Exps(const IsaTable& isa, const std::vector<float>& x) {
  std::vector<float> out(x.size());
  std::vector<float> sums(x.size() / kSumBlock + 1);
  isa.exp_sums(x.data(), static_cast<int64_t>(x.size()), 0, 1, out.data(), sums.data());
  return out;
}

TEST(Exp, IsWithinTwoUlpOverItsWholeRange) {
  std::vector<float> x;
  for (float v = -104; v < 88.7f; v += 0.00037f) x.push_back(v);
  const std::vector<float> got = Exps(*SupportedIsas().back(), x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(double{x[i]});
    ASSERT_LE(std::abs(double{got[i]} - want), 2 * UlpOf(want)) << x[i];
  }
}

TEST(Exp, IsExactAtZeroAndAtTheEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const IsaTable* isa : SupportedIsas()) {
    const std::vector<float> got =
        Exps(*isa, {0.0f, -0.0f, -infinity, infinity, kNan, -1000.0f, 1000.0f});
    EXPECT_EQ(got[0], 1);
    EXPECT_EQ(got[1], 1);
    EXPECT_EQ(got[2], 0);
    EXPECT_EQ(got[3], infinity);
    EXPECT_TRUE(std::isnan(got[4]));
    EXPECT_EQ(got[5], 0);
    EXPECT_EQ(got[6], infinity);
  }
}

TEST(SinCos, AreWithinAnUlpOfOneForEveryAngleOfALongContext) {
  const IsaTable& isa = *SupportedIsas().back();
  Random random(1);
  for (int i = 0; i < 20000; ++i) {
    const auto position = static_cast<float>(random.Below(1 << 20));
    const float inv_freq = i % 2 == 0 ? 1.0f : std::abs(random.Normal());
    float cosine, sine;
    isa.rope_angles(position, &inv_freq, 1, &cosine, &sine);
    const double angle = double{position * inv_freq};
    if (angle >= 0x1p21) continue;  // the stated range
    ASSERT_LE(std::abs(double{cosine} - std::cos(angle)), 0x1p-23) << angle;
    ASSERT_LE(std::abs(double{sine} - std::sin(angle)), 0x1p-23) << angle;
  }
}

TEST(SinCos, AreExactAtZero) {
  const float inv_freq = 1;
  for (const IsaTable* isa : SupportedIsas()) {
    float cosine, sine;
    isa->rope_angles(0, &inv_freq, 1, &cosine, &sine);
    EXPECT_EQ(cosine, 1);
    EXPECT_EQ(sine, 0);
  }
}

// The tail is right within 2^-25.9 and its own roundings, |x|/2 multiplies it, and the sum is
// rounded by at most 2^-24 of |x|: twice that in all.
TEST(Gelu, ExactFormIsWithinTheBoundOfItsTail) {
  std::vector<float> x, got;
  for (float v = -9; v < 9; v += 0.0001f) x.push_back(v);
  got = x;
  SupportedIsas().back()->gelu(got.data(), static_cast<int64_t>(got.size()), 0);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    const double want = 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
    ASSERT_LE(std::abs(double{got[i]} - want), std::abs(v) * 0x1p-23) << v;
  }
}

// 1 / (1 + e^-2u): the argument's own rounding (4 steps on |2u|) passes through e's exponent, the
// rest is 2 ulp of exp and two roundings, all relative.
TEST(Gelu, TanhFormIsWithinARelativeBound) {
  std::vector<float> x, got;
  for (float v = -7; v < 9; v += 0.0001f) x.push_back(v);
  got = x;
  SupportedIsas().back()->gelu(got.data(), static_cast<int64_t>(got.size()), 1);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    const double u = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
    const double want = v / (1 + std::exp(-2 * u));
    const double relative = (5 * std::abs(2 * u) + 6) * 0x1p-24;
    ASSERT_LE(std::abs(double{got[i]} - want), relative * std::abs(want) + 1e-37) << v;
  }
}

class EveryLength : public testing::TestWithParam<int64_t> {};

// Runs f(table, out) on every row and compares the bytes that it wrote with the scalar row's.
template <typename F>
void ExpectSameOnEveryIsa(int64_t floats, F f) {
  std::vector<float> want(static_cast<size_t>(floats), 42);
  f(kScalarTable, want.data());
  for (const IsaTable* isa : SupportedIsas()) {
    std::vector<float> got(static_cast<size_t>(floats), 42);
    f(*isa, got.data());
    ASSERT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0) << isa->name;
  }
}

TEST_P(EveryLength, RowFunctionsAgreeOnEveryIsaAndStayInBounds) {
  const int64_t n = GetParam();
  Random random(5);
  // NaN follows every input: a lane too many would show.
  const auto inputs = [&](float scale) {
    std::vector<float> values = random.Normals(n, scale);
    values.resize(static_cast<size_t>(n) + 16, kNan);
    return values;
  };
  const std::vector<float> a = inputs(3), b = inputs(1), w = inputs(1);
  const LaneVector weight = {w.data(), kLaneF32};
  const LaneVector bias = {b.data(), kLaneF32};
  const int64_t room = n + 16;
  ExpectSameOnEveryIsa(room, [&](const IsaTable& isa, float* out) {
    isa.rms_norm(a.data(), weight, n, 1e-5f, out);
  });
  ExpectSameOnEveryIsa(room, [&](const IsaTable& isa, float* out) {
    isa.layer_norm(a.data(), b.data(), weight, bias, n, 1e-5f, out);
  });
  ExpectSameOnEveryIsa(
      room, [&](const IsaTable& isa, float* out) { isa.silu_mul(a.data(), b.data(), n, out); });
  for (const int32_t tanh_form : {0, 1}) {
    ExpectSameOnEveryIsa(room, [&](const IsaTable& isa, float* out) {
      std::copy_n(a.data(), n, out);
      isa.gelu(out, n, tanh_form);
    });
  }
  for (const LaneType type : {kLaneF32, kLaneF16, kLaneBF16}) {
    ExpectSameOnEveryIsa(
        room, [&](const IsaTable& isa, float* out) { isa.store(a.data(), n, type, out); });
  }
  ExpectSameOnEveryIsa(2 * room, [&](const IsaTable& isa, float* out) {
    isa.rope_angles(1234, a.data(), n, out, out + room);
  });
  ExpectSameOnEveryIsa(2 * room, [&](const IsaTable& isa, float* out) {
    std::copy_n(a.data(), n, out);
    std::copy_n(b.data(), n, out + n);
    isa.rope_rotate(out, w.data(), a.data(), n);
  });
  ExpectSameOnEveryIsa(room, [&](const IsaTable& isa, float* out) {
    std::copy_n(a.data(), n, out);
    isa.add(b.data(), n, out);
    isa.divide(out, n, 7);
  });
  ExpectSameOnEveryIsa(2, [&](const IsaTable& isa, float* out) {
    out[0] = isa.sum_squares(a.data(), n);
    out[1] = isa.max_value(a.data(), n);
  });
  ExpectSameOnEveryIsa(2 * room, [&](const IsaTable& isa, float* out) {
    isa.exp_sums(a.data(), n, 5, 0.7f, out, out + room);
  });
  ExpectSameOnEveryIsa((n / kSumBlock + 1) * kLanes,
                       [&](const IsaTable& isa, float* out) { isa.lane_maxima(a.data(), n, out); });
  ExpectSameOnEveryIsa(room, [&](const IsaTable& isa, float* out) {
    isa.select(a.data(), n, 0.5f, reinterpret_cast<int32_t*>(out));
  });
}

TEST_P(EveryLength, SearchesFindWhatAPlainLoopFinds) {
  const int64_t n = GetParam();
  Random random(6);
  std::vector<float> x = random.Normals(n);
  if (n > 3) x[2] = kNan;
  float max = -std::numeric_limits<float>::infinity();
  std::vector<int32_t> want;
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[static_cast<size_t>(i)];
    if (v > max) max = v;
    if (v >= 0.25f) want.push_back(static_cast<int32_t>(i));
  }
  const int64_t place = std::find(x.begin(), x.end(), max) - x.begin();
  for (const IsaTable* isa : SupportedIsas()) {
    EXPECT_EQ(isa->max_value(x.data(), n), max) << isa->name;
    EXPECT_EQ(isa->find(x.data(), n, max), place) << isa->name;
    EXPECT_EQ(isa->find(x.data(), n, 77), n) << isa->name;
    std::vector<int32_t> got(static_cast<size_t>(n));
    got.resize(static_cast<size_t>(isa->select(x.data(), n, 0.25f, got.data())));
    EXPECT_EQ(got, want) << isa->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Lengths, EveryLength,
                         testing::Values(1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 100, 576,
                                         1023, 1024, 1025, 5000));

TEST(Convert, StoresRoundAsHalfSaysOnEveryIsa) {
  Random random(8);
  std::vector<float> x = random.Normals(4096, 1000);
  for (size_t i = 0; i < x.size(); i += 3) x[i] = std::ldexp(x[i], static_cast<int>(i % 60) - 45);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float special : {0.0f, -0.0f, infinity, -infinity, kNan, 65504.0f, 65519.9f, 65520.0f,
                              1e30f, 6e-8f, 2.9e-8f, 3.4e38f}) {
    x.push_back(special);
  }
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const LaneType type = dtype == DType::kF16 ? kLaneF16 : kLaneBF16;
    for (const IsaTable* isa : SupportedIsas()) {
      std::vector<uint16_t> got(x.size());
      isa->store(x.data(), static_cast<int64_t>(x.size()), type, got.data());
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_EQ(got[i], F32ToHalf(dtype, x[i])) << isa->name << " " << Name(dtype) << " " << x[i];
      }
      std::vector<float> back(x.size());
      isa->convert(got.data(), type, static_cast<int64_t>(got.size()), 0, back.data());
      for (size_t i = 0; i < x.size(); ++i) {
        const float want = HalfToF32(dtype, got[i]);
        ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(want)) << isa->name;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
