// Rows of x for the tensor cores, and what is left to do with sums: all exact.
#include "kernels/cuda/prepare.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/finish.h"
#include "tests/kernels/cuda/matmul_testing.h"

namespace nibble::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

using Prepare = CudaTest;

struct HalfRows {
  std::vector<uint16_t> values;
  std::vector<float> scales;
};

HalfRows PreparedOf(const Matrix& x) {
  const DeviceMatrix on_device(x, 4);
  const int64_t stride = PreparedStride(x.cols());
  const DeviceArray<uint16_t> values(x.rows() * stride);
  const DeviceArray<float> scales(x.rows(), 4);
  Tape tape;
  PrepareHalf(&tape, on_device.View(), {values.data(), scales.data(), x.rows(), x.cols(), stride});
  Play(tape);
  return {values.Get(), scales.Get()};
}

// The power of two of prepare.h.
float ScaleOf(const Matrix& x, int64_t row) {
  float largest = 0;
  for (int64_t k = 0; k < x.cols(); ++k) {
    if (std::isfinite(x.At(row, k))) largest = std::max(largest, std::abs(x.At(row, k)));
  }
  if (largest == 0 || (largest >= 0x1p-4f && largest < 0x1p15f)) return 1;
  return std::ldexp(1.0f, std::max(std::ilogb(largest) - 14, -126));
}

void ExpectPrepared(const Matrix& x, const HalfRows& got) {
  const int64_t stride = PreparedStride(x.cols());
  for (int64_t m = 0; m < x.rows(); ++m) {
    const float scale = ScaleOf(x, m);
    ASSERT_EQ(got.scales[static_cast<size_t>(m)], scale) << m;
    for (int64_t k = 0; k < stride; ++k) {
      const uint16_t bits = got.values[static_cast<size_t>(m * stride + k)];
      const float want = k < x.cols() ? F16ToF32(F32ToF16(x.At(m, k) / scale)) : 0.0f;
      const float value = F16ToF32(bits);
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(value)) << m << " " << k;
      } else {
        ASSERT_EQ(value, want) << m << " " << k << " x=" << x.At(m, k) << " scale=" << scale;
      }
    }
  }
}

TEST_F(Prepare, RowsAreHalvesTimesTheirPowerOfTwo) {
  Random random(1);
  for (int i = 0; i < 500; ++i) {
    Matrix x(1 + random.Below(5), 1 + random.Below(i % 50 == 0 ? 9000 : 300), random.Below(4));
    for (int64_t m = 0; m < x.rows(); ++m) {
      const int exponent = static_cast<int>(random.Below(250)) - 140;
      const float scale = std::ldexp(1.0f, random.Below(2) == 0 ? exponent : 0);
      for (int64_t k = 0; k < x.cols(); ++k) x.At(m, k) = scale * random.Normal();
    }
    ExpectPrepared(x, PreparedOf(x));
    if (HasFatalFailure()) return;
  }
}

TEST_F(Prepare, TheExtremesOfFp32FitAndBadValuesStayInTheirRows) {
  constexpr float kRows[][3] = {
      {0, -0.0f, 0},          {1e-45f, 0, -1e-45f},      {3.4e38f, 1, -3.4e38f}, {kInf, 2, 1e-3f},
      {kNan, 70000, 0.5f},    {kInf, -kInf, kNan},       {0x1p15f, 0x1p-10f, 1}, {32767.998f, 1, 0},
      {0x1p-4f, 0x1p-20f, 0}, {0.06249999f, 0x1p-20f, 0}};
  Matrix x(std::size(kRows), 3);
  for (int64_t m = 0; m < x.rows(); ++m) std::copy_n(kRows[m], 3, x.View().Row(m));
  const HalfRows got = PreparedOf(x);
  ExpectPrepared(x, got);
  EXPECT_EQ(got.scales[0], 1);
  EXPECT_EQ(got.scales[3], 1);
  EXPECT_EQ(got.scales[5], 1);
  EXPECT_EQ(got.values[3 * 64], 0x7c00);
}

TEST_F(Prepare, Bf16RowsAreRoundedAndPadded) {
  Random random(2);
  for (const int64_t k : {1, 63, 64, 65, 300, 9000}) {
    Matrix x(3, k, random);
    x.At(1, 0) = kInf;
    x.At(2, 0) = 3.4028234e38f;
    const DeviceMatrix on_device(x, 4);
    const int64_t stride = PreparedStride(k);
    const DeviceArray<uint16_t> rows(3 * stride);
    Tape tape;
    PrepareBf16(&tape, on_device.View(), rows.data(), stride);
    Play(tape);
    const std::vector<uint16_t> got = rows.Get();
    for (int64_t m = 0; m < 3; ++m) {
      for (int64_t i = 0; i < stride; ++i) {
        ASSERT_EQ(got[static_cast<size_t>(m * stride + i)], i < k ? F32ToBf16(x.At(m, i)) : 0);
      }
    }
  }
}

using Finish = CudaTest;

TEST_F(Finish, ScalesAddsBiasAndTheOldValueInPlaceOrNot) {
  Random random(3);
  for (int i = 0; i < 500; ++i) {
    const int64_t rows = 1 + random.Below(20), cols = 1 + random.Below(i % 20 == 0 ? 2500 : 200);
    const Matrix old(rows, cols, random), sums(rows, cols, random);
    const bool accumulate = random.Below(3) == 0, in_place = !accumulate && random.Below(2) == 0;
    const bool has_rows = random.Below(2) == 0, has_columns = random.Below(2) == 0;
    std::vector<float> row_scales, column_scales;
    for (int64_t m = 0; m < rows; ++m) {
      row_scales.push_back(std::ldexp(1.0f, static_cast<int>(random.Below(3))));
    }
    for (int64_t n = 0; n < cols; ++n) {
      column_scales.push_back(std::ldexp(1.0f, static_cast<int>(random.Below(3))));
    }
    const DeviceBias bias = RandomBias(cols, random);
    const DeviceMatrix sums_there(sums, 4), out(in_place ? sums : old, 4);
    const DeviceArray<float> row_there(row_scales, 4), column_there(column_scales, 4);
    const Activations from = in_place ? out.View() : sums_there.View();
    Tape tape;
    FinishSums(&tape,
               {from.data, from.stride, out.View().data, out.View().stride, rows, cols,
                has_rows ? row_there.data() : nullptr, has_columns ? column_there.data() : nullptr,
                bias.View().data, static_cast<int32_t>(bias.View().dtype), accumulate ? 1 : 0});
    Play(tape);
    Matrix want(rows, cols);
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t n = 0; n < cols; ++n) {
        float sum = sums.At(m, n);
        if (has_rows) sum *= row_scales[static_cast<size_t>(m)];
        if (has_columns) sum *= column_scales[static_cast<size_t>(n)];
        sum += static_cast<float>(bias.At(n));
        want.At(m, n) = accumulate ? old.At(m, n) + sum : sum;
      }
    }
    ExpectSameNumbers(out.Get(), want, absl::StrCat("case ", i));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace nibble::cuda
