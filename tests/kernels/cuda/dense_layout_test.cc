#include "kernels/cuda/dense_layout.h"

#include <gtest/gtest.h>

namespace nibble::cuda {
namespace {

TEST(DenseLayout, Int8TakesAByteAWeightAndAScaleARow) {
  const PackedSize size = DensePackedBytes({.format = WeightFormat::kInt8, .n = 10, .k = 48});
  EXPECT_EQ(size.codes, 480);
  EXPECT_EQ(size.scales, 40);
  EXPECT_EQ(size.Total(), 520);
  // Rows of other widths are padded to 16 bytes.
  EXPECT_EQ(DensePackedBytes({.format = WeightFormat::kInt8, .n = 10, .k = 33}).codes, 480);
}

TEST(DenseLayout, SixteenBitMatricesAreNotPadded) {
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kF16}) {
    const PackedSize size = DensePackedBytes({.format = format, .n = 10, .k = 33});
    EXPECT_EQ(size.codes, 660);
    EXPECT_EQ(size.Total(), 660);
  }
}

}  // namespace
}  // namespace nibble::cuda
