#include "kernels/cuda/four_bit_row_scales.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/kernels/cuda/matmul_testing.h"

namespace nibble::cuda {
namespace {

using FourBitRowScalesTest = CudaTest;

// By the header's words.
float ScaleOf(const FourBitMatrix& matrix, int64_t n) {
  float level = 0, largest = 0;
  for (const float code : matrix.codebook) level = std::max(level, std::abs(code));
  for (int64_t k = 0; k < matrix.k; ++k) {
    const float scale = GroupScale(matrix, (n * matrix.k + k) / matrix.group_size);
    const float magnitude = std::abs(scale * level);
    if (std::isfinite(magnitude)) largest = std::max(largest, magnitude);
  }
  if (largest == 0 || (largest >= 0x1p-8f && largest < 0x1p15f)) return 1;
  return std::ldexp(1.0f, std::max(std::ilogb(largest) - 14, -126));
}

TEST_F(FourBitRowScalesTest, AreThePowersOfTwoThatBringRowsIntoFp16) {
  Random random(1);
  for (int i = 0; i < 500; ++i) {
    constexpr int32_t kGroups[] = {32, 64, 128, 256};
    const int32_t group = kGroups[random.Below(4)];
    const int64_t n = 1 + random.Below(70);
    const int64_t k = random.Below(2) == 0 ? group * (1 + random.Below(20)) : 1 + random.Below(600);
    std::vector<float> values = random.Normals(n * k, 0.05f);
    for (int64_t row = 0; row < n; ++row) {
      const int exponent = static_cast<int>(random.Below(240)) - 125;
      const float scale = std::ldexp(1.0f, random.Below(2) == 0 ? exponent : 0);
      for (int64_t c = 0; c < k; ++c) values[static_cast<size_t>(row * k + c)] *= scale;
    }
    const bool double_quant = random.Below(2) == 0;
    absl::StatusOr<FourBitMatrix> matrix =
        QuantizeFourBit(values, n, k, {.group_size = group, .double_quant = double_quant});
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    if (!double_quant && random.Below(3) == 0) {
      matrix->absmax[static_cast<size_t>(random.Below(matrix->NumGroups()))] =
          std::numeric_limits<float>::infinity();
    }
    if (random.Below(3) == 0) matrix->codebook[15] = 3;
    const DeviceFormatTables tables;
    const DeviceWeight weight(*matrix);
    const int64_t first = random.Below(n), count = 1 + random.Below(n - first);
    const DeviceArray<float> scales(count, 4);
    Tape tape;
    FourBitRowScales(&tape, ViewOf(weight.weight(), tables.View()), first, count, scales.data());
    Play(tape);
    const std::vector<float> got = scales.Get();
    for (int64_t row = 0; row < count; ++row) {
      ASSERT_EQ(got[static_cast<size_t>(row)], ScaleOf(*matrix, first + row))
          << "case " << i << " N=" << n << " K=" << k << " group=" << group << " row "
          << first + row;
    }
  }
}

}  // namespace
}  // namespace nibble::cuda
