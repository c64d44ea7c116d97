// The int8 mode on AMX tiles, through their twin in plain C++: sums of bytes are exact, so that its
// bits are those of the scalar row, which byte_matmul_test.cc holds to the mode's definition.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "kernels/four_bit.h"
#include "tests/kernels/cpu/amx_testing.h"

namespace nibble {
namespace {

// The same product on the scalar row.
Matrix ScalarProduct(const Weight& weight, const Matrix& x, const VectorView& bias = {},
                     const Matrix* residual = nullptr) {
  const std::unique_ptr<Backend> scalar = Cpu("scalar", 1, Compute::kInt8);
  const LentScratch scratch(*scalar, {.max_rows = x.rows(), .max_k = x.cols()});
  Matrix out(x.rows(), weight.spec.n);
  if (residual != nullptr) out = *residual;
  const MatMulPart part = {&weight, bias, out.View(), residual != nullptr};
  scalar->MatMul(x.View(), {&part, 1});
  return out;
}

// Equal bits, or a NaN on both sides.
void ExpectSame(const Matrix& got, const Matrix& want, const std::string& what) {
  EXPECT_TRUE(got.MarginIsIntact()) << what;
  for (int64_t m = 0; m < got.rows(); ++m) {
    for (int64_t n = 0; n < got.cols(); ++n) {
      if (std::isnan(got.At(m, n)) && std::isnan(want.At(m, n))) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(got.At(m, n)), std::bit_cast<uint32_t>(want.At(m, n)))
          << what << " at [" << m << "," << n << "]: got " << got.At(m, n) << ", want "
          << want.At(m, n);
    }
  }
}

TEST(AmxTwinInt8, GivesTheBitsOfTheScalarRowForRandomShapes) {
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  AmxTwin twin(Compute::kInt8);
  for (uint32_t seed = 0; seed < 500; ++seed) {
    Random random(2000 + seed);
    const FourBitShape shape = RandomFourBitShape(random);
    const PackedMatrix packed(*packer, RandomFourBit(shape, random));
    const Surroundings s = RandomSurroundings(shape.m, shape.n, shape.k, random);
    const VectorView bias =
        s.has_bias ? VectorView{s.bias.data(), DType::kF32, shape.n} : VectorView{};
    const Matrix* residual = s.accumulates ? &s.residual : nullptr;
    ExpectSame(twin.Product(packed.weight(), s.x, bias, residual),
               ScalarProduct(packed.weight(), s.x, bias, residual),
               absl::StrCat("seed ", seed, ": ", NameOf(shape)));
    if (testing::Test::HasFailure()) return;
  }
}

// Every product of bytes at its extreme.
TEST(AmxTwinInt8, HoldsTheLargestSums) {
  constexpr int64_t kRows = 20, kN = 17, kK = 192;
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  for (const float sign : {1.0f, -1.0f}) {
    const std::vector<float> w(kN * kK, sign);
    const PackedMatrix packed(*packer, *QuantizeFourBit(w, kN, kK, {.double_quant = false}));
    Matrix x(kRows, kK);
    for (int64_t m = 0; m < kRows; ++m) {
      for (int64_t k = 0; k < kK; ++k) x.At(m, k) = m % 2 == 0 ? -127 : 127;
    }
    const Matrix got = AmxTwin(Compute::kInt8).Product(packed.weight(), x);
    ExpectSame(got, ScalarProduct(packed.weight(), x), "extremes");
    EXPECT_FLOAT_EQ(got.At(0, 0), -127 * kK * sign);
  }
}

// LLM.int8() has no tiles; its bytes are VNNI's, here in plain C++ too.
TEST(AmxTwinInt8, WeightsOfInt8GiveTheBitsOfTheScalarRow) {
  Random random(7);
  constexpr int64_t kRows = 21, kN = 37, kK = 150;
  Int8Matrix matrix = MakeInt8Matrix(kN, kK);
  ASSERT_TRUE(QuantizeInt8(0, random.Normals(kN * kK), &matrix).ok());
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  const PackedMatrix packed(*packer, matrix, 2.5f);
  const Matrix x(kRows, kK, random);
  ExpectSameBits(AmxTwin(Compute::kInt8).Product(packed.weight(), x),
                 ScalarProduct(packed.weight(), x), "LLM.int8()");
}

TEST(AmxTwinInt8, ARowAloneEqualsTheSameRowInAnyCrowd) {
  Random random(3);
  const FourBitShape shape = {300, 103, 320, 64};
  const Matrix x(shape.m, shape.k, random);
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  const PackedMatrix packed(*packer, RandomFourBit(shape, random));
  const Matrix crowd = AmxTwin(Compute::kInt8, 3).Product(packed.weight(), x);
  AmxTwin twin(Compute::kInt8);
  for (const int64_t rows : {1, 2, 15, 16, 17, 31, 32, 33, 49, 255, 257, 300}) {
    const int64_t first = random.Below(shape.m - rows + 1);
    ExpectSameBits(twin.Product(packed.weight(), RowsOf(x, first, rows)),
                   RowsOf(crowd, first, rows), absl::StrCat("M=", rows));
  }
}

}  // namespace
}  // namespace nibble
