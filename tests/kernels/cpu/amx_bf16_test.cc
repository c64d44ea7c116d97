// The bf16 mode on AMX tiles, through their twin in plain C++: against its definition bit by bit,
// against the reference by a derived bound, and alone against in a crowd.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/packing.h"
#include "kernels/four_bit.h"
#include "tests/kernels/cpu/amx_testing.h"

namespace nibble {
namespace {

float Flushed(float x) { return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
float Bf16(float x) { return Flushed(Bf16ToF32(F32ToBf16(x))); }

// W as its definition sees it: what is multiplied, [n][k], and the scale of each.
struct PlainWeights {
  int64_t n, k, group_size;
  std::vector<float> codes, scales;

  float Code(int64_t row, int64_t i) const {
    return i < k ? Bf16(codes[static_cast<size_t>(row * k + i)]) : 0;
  }
  float Scale(int64_t row, int64_t i) const { return scales[static_cast<size_t>(row * k + i)]; }
  float Value(int64_t row, int64_t i) const {
    return codes[static_cast<size_t>(row * k + i)] * Scale(row, i);
  }
};

PlainWeights PlainOf(const FourBitMatrix& matrix) {
  PlainWeights plain = {matrix.n, matrix.k, matrix.group_size, {}, {}};
  for (int64_t i = 0; i < matrix.NumValues(); ++i) {
    const uint8_t byte = matrix.codes[static_cast<size_t>(i / 2)];
    plain.codes.push_back(matrix.codebook[i % 2 == 0 ? byte >> 4 : byte & 15]);
    plain.scales.push_back(GroupScale(matrix, i / matrix.group_size));
  }
  return plain;
}

// The mode's definition (kernels/cpu/lanes_amx.inl), one output at a time.
float DefinedSum(const Matrix& x, int64_t m, const PlainWeights& w, int64_t n) {
  constexpr int64_t kLongestPiece = 256;
  const auto fma = [](float a, float b, float sum) { return Flushed(std::fma(a, b, sum)); };
  const auto x_at = [&](int64_t k) { return k < w.k ? Bf16(x.At(m, k)) : 0; };
  const int64_t piece = std::min(w.group_size, kLongestPiece);
  float total = 0;
  for (int64_t first = 0; first < w.k; first += piece) {
    float t = 0;
    for (int64_t step = first; step < std::min(first + piece, w.k); step += 32) {
      float lower = 0, upper = 0;
      for (int64_t line = step; line < step + 32; line += 8) {
        for (int64_t k = line; k < line + 4; ++k) {
          lower = fma(x_at(k), w.Code(n, k), lower);
          upper = fma(x_at(k + 4), w.Code(n, k + 4), upper);
        }
      }
      t = Flushed(t + Flushed(lower + upper));
    }
    total = std::fma(t, w.Scale(n, first), total);
  }
  return total;
}

// Equal bits, or a NaN on both sides: payloads are the hardware's own.
void ExpectDefined(const Matrix& got, const Matrix& x, const PlainWeights& w,
                   const std::vector<float>* bias, const Matrix* residual,
                   const std::string& what) {
  EXPECT_TRUE(got.MarginIsIntact()) << what;
  for (int64_t m = 0; m < got.rows(); ++m) {
    for (int64_t n = 0; n < got.cols(); ++n) {
      float want = DefinedSum(x, m, w, n);
      if (bias != nullptr) want += (*bias)[static_cast<size_t>(n)];
      if (residual != nullptr) want = residual->At(m, n) + want;
      if (std::isnan(want) && std::isnan(got.At(m, n))) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(got.At(m, n)), std::bit_cast<uint32_t>(want))
          << what << " at [" << m << "," << n << "]: got " << got.At(m, n) << ", want " << want;
    }
  }
}

// |got - Σ x·w| where x is finite. Both factors are rounded to 8 bits, each off by at most 2^-9 of
// itself; a product then takes part in 16 fused additions of a step, one of its halves, 8 of a
// piece at most and one for each piece.
void ExpectNearReference(const Matrix& got, const Matrix& x, const PlainWeights& w,
                         const std::string& what) {
  const double error = 2 * 0x1p-9 + 0x1p-17 + static_cast<double>(26 + w.k / 32) * kUlp;
  for (int64_t m = 0; m < got.rows(); ++m) {
    for (int64_t n = 0; n < got.cols(); ++n) {
      double want = 0, magnitude = 0;
      for (int64_t k = 0; k < w.k; ++k) {
        const double term = double{x.At(m, k)} * double{w.Value(n, k)};
        want += term;
        magnitude += std::abs(term);
      }
      if (!std::isfinite(want)) continue;
      ASSERT_LE(std::abs(double{got.At(m, n)} - want), error * magnitude + 1e-36)
          << what << " at [" << m << "," << n << "]: got " << got.At(m, n) << ", want " << want;
    }
  }
}

void ExpectRight(AmxTwin& twin, const Weight& weight, const PlainWeights& plain,
                 const Surroundings& s, const std::string& what) {
  const VectorView bias =
      s.has_bias ? VectorView{s.bias.data(), DType::kF32, plain.n} : VectorView{};
  const Matrix got = twin.Product(weight, s.x, bias, s.accumulates ? &s.residual : nullptr);
  ExpectDefined(got, s.x, plain, s.has_bias ? &s.bias : nullptr,
                s.accumulates ? &s.residual : nullptr, what);
  if (!s.has_bias && !s.accumulates) ExpectNearReference(got, s.x, plain, what);
}

TEST(AmxTwinBf16, FourBitsAreAsDefinedForRandomShapes) {
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  AmxTwin twin(Compute::kBf16);
  for (uint32_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    const FourBitShape shape = RandomFourBitShape(random);
    const FourBitMatrix matrix = RandomFourBit(shape, random);
    const PackedMatrix packed(*packer, matrix);
    ExpectRight(twin, packed.weight(), PlainOf(matrix),
                RandomSurroundings(shape.m, shape.n, shape.k, random),
                absl::StrCat("seed ", seed, ": ", NameOf(shape)));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(AmxTwinBf16, WeightsOfBf16AreAsDefinedForRandomShapes) {
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  AmxTwin twin(Compute::kBf16);
  for (uint32_t seed = 0; seed < 200; ++seed) {
    Random random(1000 + seed);
    const int64_t m = RandomRows(random), k = 1 + random.Below(600);
    const int64_t n = RandomColumns(m, k, random);
    PlainWeights plain = {n, k, k + 1000, random.Normals(n * k), {}};
    for (float& value : plain.codes) value = Bf16ToF32(F32ToBf16(value));
    plain.scales.assign(plain.codes.size(), 1);
    const PackedMatrix packed(*packer, WeightFormat::kBf16, n, k,
                              ToHalves(WeightFormat::kBf16, plain.codes));
    ExpectRight(twin, packed.weight(), plain, RandomSurroundings(m, n, k, random),
                absl::StrCat("seed ", seed, ": M=", m, " N=", n, " K=", k));
    if (testing::Test::HasFailure()) return;
  }
}

// More rows than a block, than few rows, than a tile; tails of each.
TEST(AmxTwinBf16, ARowAloneEqualsTheSameRowInAnyCrowd) {
  Random random(3);
  constexpr int64_t kRows = 530, kN = 96 + 7, kK = 320;
  const Matrix x(kRows, kK, random);
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  const std::vector<float> values = random.Normals(kN * kK);
  const PackedMatrix nf4(*packer, RandomFourBit({kRows, kN, kK, 64}, random));
  const PackedMatrix half(*packer, WeightFormat::kBf16, kN, kK,
                          ToHalves(WeightFormat::kBf16, values));
  for (const PackedMatrix* packed : {&nf4, &half}) {
    const Matrix crowd = AmxTwin(Compute::kBf16, 3).Product(packed->weight(), x);
    AmxTwin twin(Compute::kBf16);
    ExpectSameBits(twin.Product(packed->weight(), x), crowd, "one thread");
    for (const int64_t rows : {1, 2, 15, 16, 17, 31, 32, 33, 47, 49, 255, 257, 511}) {
      const int64_t first = random.Below(kRows - rows);
      ExpectSameBits(twin.Product(packed->weight(), RowsOf(x, first, rows)),
                     RowsOf(crowd, first, rows), absl::StrCat("M=", rows));
    }
  }
}

// One task of more rows than CpuMatMul makes on a few threads.
TEST(AmxTwinBf16, ManyRowsOfOneTaskAreEachAddedOnce) {
  Random random(4);
  constexpr int64_t kRows = 530, kN = 48, kK = 64;
  const Matrix x(kRows, kK, random), residual(kRows, kN, random);
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  const PackedMatrix packed(*packer, RandomFourBit({kRows, kN, kK, 64}, random));
  const Matrix want = AmxTwin(Compute::kBf16).Product(packed.weight(), x, {}, &residual);
  std::vector<uint32_t> pairs(static_cast<size_t>(kRows * Bf16Stride(kK)));
  const Bf16Rows rows = {pairs.data(), Bf16Stride(kK)};
  for (int64_t m = 0; m < kRows; ++m) kAmxTwinTable.bf16_input(x.View().Row(m), kK, m, &rows);
  Matrix got = residual;
  MatMulTask task = {};
  DescribeSuperPanel(packed.weight(), 0, &task);
  task.rows = kRows;
  task.out = got.View().Row(0);
  task.out_stride = got.View().stride;
  task.accumulate = 1;
  task.bf16 = rows;
  kAmxTwinTable.four_bit_bf16(&task);
  ExpectSameBits(got, want, "one task");
}

TEST(AmxTwinBf16, AStrangeRowStaysAlone) {
  Random random(5);
  constexpr int64_t kRows = 37, kN = 40, kK = 200;
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  const PackedMatrix packed(*packer, WeightFormat::kBf16, kN, kK,
                            ToHalves(WeightFormat::kBf16, random.Normals(kN * kK)));
  const Matrix x(kRows, kK, random);
  AmxTwin twin(Compute::kBf16);
  const Matrix calm = twin.Product(packed.weight(), x);
  for (int64_t row = 0; row < kRows; ++row) {
    Matrix strange = x, want = calm;
    for (int64_t k = 0; k < kK; ++k) strange.At(row, k) = kNan;
    const Matrix got = twin.Product(packed.weight(), strange);
    for (int64_t n = 0; n < kN; ++n) {
      EXPECT_TRUE(std::isnan(got.At(row, n))) << row << " " << n;
      want.At(row, n) = got.At(row, n);
    }
    ExpectSameBits(got, want, absl::StrCat("row ", row));
  }
}

// What lies behind a super panel are the weights of other columns.
TEST(AmxTwinBf16, StrangeWeightsStayInTheirColumn) {
  Random random(6);
  constexpr int64_t kN = 160, kCalm = 80, kRows = 3;
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  AmxTwin twin(Compute::kBf16);
  for (const int64_t k : {1, 4, 5, 8, 12, 31, 33, 60, 257}) {
    std::vector<float> w = random.Normals(kN * k);
    std::fill(w.begin() + kCalm * k, w.end(), kNan);
    const PackedMatrix packed(*packer, WeightFormat::kBf16, kN, k,
                              ToHalves(WeightFormat::kBf16, w));
    const Matrix got = twin.Product(packed.weight(), Matrix(kRows, k, random));
    for (int64_t m = 0; m < kRows; ++m) {
      for (int64_t n = 0; n < kN; ++n) {
        EXPECT_EQ(std::isnan(got.At(m, n)), n >= kCalm) << "K=" << k << " " << m << " " << n;
      }
    }
  }
}

TEST(AmxTwinBf16, SubnormalsAreZeroBeforeAndAfterAProduct) {
  constexpr int64_t kK = 64;
  const std::unique_ptr<Backend> packer = Cpu("scalar", 1);
  const PackedMatrix packed(
      *packer, *QuantizeFourBit(std::vector<float>(16 * kK, 1), 16, kK, {.double_quant = false}));
  AmxTwin twin(Compute::kBf16);
  Matrix x(1, kK);
  x.At(0, 5) = 0x1p-130f;
  EXPECT_EQ(twin.Product(packed.weight(), x).At(0, 0), 0);
  x.At(0, 5) = 1.5f * 0x1p-126f;
  EXPECT_EQ(twin.Product(packed.weight(), x).At(0, 0), x.At(0, 5));
  x.At(0, 6) = -0x1p-126f;  // the sum alone is subnormal
  EXPECT_EQ(twin.Product(packed.weight(), x).At(0, 0), 0);
}

// The one test of the instructions themselves: that they do what the twin says.
TEST(AmxBf16, GivesTheBitsOfItsTwin) {
  const std::vector<const IsaTable*> isas = SupportedIsas();
  if (std::find(isas.begin(), isas.end(), &kAmxTable) == isas.end()) {
    GTEST_SKIP() << "not run: this CPU has no amx";
  }
  const std::unique_ptr<Backend> cpu = Cpu("amx", 1, Compute::kBf16);
  AmxTwin twin(Compute::kBf16);
  Random random(23);
  for (const int64_t rows : {1, 5, 16, 17, 40, 300}) {
    const Matrix x(rows, 448, random);
    const PackedMatrix nf4(*cpu, RandomFourBit({rows, 100, 448, 64}, random));
    const PackedMatrix half(*cpu, WeightFormat::kBf16, 100, 448,
                            ToHalves(WeightFormat::kBf16, random.Normals(100 * 448)));
    for (const PackedMatrix* packed : {&nf4, &half}) {
      const LentScratch scratch(*cpu, {.max_rows = rows, .max_k = x.cols()});
      Matrix got(rows, 100);
      const MatMulPart part = {&packed->weight(), {}, got.View(), false};
      cpu->MatMul(x.View(), {&part, 1});
      ExpectSameBits(got, twin.Product(packed->weight(), x), absl::StrCat("M=", rows));
    }
  }
}

TEST(AmxTwin, MultipliesInFp32WhatBf16WouldRound) {
  Random random(17);
  constexpr int64_t kRows = 19, kN = 21, kK = 100;
  const Matrix x(kRows, kK, random);
  const std::unique_ptr<Backend> scalar = Cpu("scalar", 1);
  const std::vector<float> w = random.Normals(kN * kK);
  const PackedMatrix straddling(*scalar, *QuantizeFourBit(w, kN, kK, {}));
  const PackedMatrix halves(*scalar, WeightFormat::kF16, kN, kK, ToHalves(WeightFormat::kF16, w));
  AmxTwin bf16(Compute::kBf16), fp32(Compute::kFp32);
  for (const PackedMatrix* packed : {&straddling, &halves}) {
    Matrix want(kRows, kN);
    const MatMulPart part = {&packed->weight(), {}, want.View(), false};
    scalar->MatMul(x.View(), {&part, 1});
    ExpectSameBits(bf16.Product(packed->weight(), x), want, "bf16");
    ExpectSameBits(fp32.Product(packed->weight(), x), want, "fp32");
  }
}

}  // namespace
}  // namespace nibble
