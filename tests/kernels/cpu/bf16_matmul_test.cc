// Products of the bf16 mode: against the reference by a derived bound, against their own definition
// exactly, and against themselves bit by bit over ISA rows, threads and numbers of rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/four_bit.h"
#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

struct Shape {
  int64_t m, n, k;
  int32_t group_size;
};
const Shape kShapes[] = {
    {1, 16, 64, 64},    {1, 1, 32, 32},     {3, 5, 64, 32},      {2, 17, 128, 128},
    {4, 130, 192, 64},  {5, 33, 256, 256},  {13, 48, 576, 64},   {12, 96, 512, 512},
    {25, 64, 1024, 32}, {1, 144, 4096, 64}, {2, 16, 4096, 4096}, {7, 176, 64, 64},
};

float RoundedToBf16(float x) { return Bf16ToF32(F32ToBf16(x)); }

FourBitMatrix Quantized(WeightFormat format, const std::vector<float>& values, const Shape& shape,
                        bool double_quant) {
  absl::StatusOr<FourBitMatrix> matrix = QuantizeFourBit(
      values, shape.n, shape.k,
      {.format = format, .group_size = shape.group_size, .double_quant = double_quant});
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return *std::move(matrix);
}

// x · Wᵀ with the scratch memory that a product of these rows needs.
Matrix Product(Backend& backend, const Weight& weight, const Matrix& x, const VectorView& bias = {},
               const Matrix* residual = nullptr) {
  const LentScratch scratch(backend, {.max_rows = x.rows(), .max_k = x.cols()});
  Matrix out(x.rows(), weight.spec.n);
  if (residual != nullptr) out = *residual;
  const MatMulPart part = {&weight, bias, out.View(), residual != nullptr};
  backend.MatMul(x.View(), {&part, 1});
  return out;
}

std::unique_ptr<Backend> Bf16Cpu(const std::string& isa, int threads = 1) {
  return Cpu(isa, threads, Compute::kBf16);
}

// Σ_k |x·w| of every output, times `error`.
auto BoundOf(const Matrix& x, const std::vector<float>& w, double error) {
  return [&, error](int64_t r, int64_t c) {
    double sum = 0;
    for (int64_t k = 0; k < x.cols(); ++k) {
      sum += std::abs(double{x.At(r, k)} * double{w[static_cast<size_t>(c * x.cols() + k)]});
    }
    return sum * error + 1e-36;
  };
}

// Both factors are rounded to 8 bits, each off by at most 2^-9 of itself; then a chain of K fused
// additions (Higham, §3.1).
double ErrorOf(int64_t k) {
  return 2 * 0x1p-9 + 0x1p-17 + static_cast<double>(k + 4) * kUlp * 1.01;
}

// AMX adds in an order of its own (amx_bf16_test.cc); the other rows give the same bits.
bool HasLanesOrder(const Backend& backend) { return backend.isa() != "amx"; }

class Bf16MatMul : public testing::TestWithParam<std::tuple<Shape, WeightFormat, bool>> {};

TEST_P(Bf16MatMul, MatchesTheReferenceAndItselfOnEveryRowAndThreadCount) {
  const auto [shape, format, double_quant] = GetParam();
  Random random(7);
  const Matrix x(shape.m, shape.k, random);
  const FourBitMatrix matrix =
      Quantized(format, random.Normals(shape.n * shape.k, 0.1f), shape, double_quant);
  std::vector<float> w(static_cast<size_t>(matrix.NumValues()));
  DequantizeFourBit(matrix, 0, w);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const Matrix want = Product(*reference, PackedMatrix(*reference, matrix).weight(), x);
  const std::unique_ptr<Backend> scalar = Bf16Cpu("scalar");
  const Matrix first = Product(*scalar, PackedMatrix(*scalar, matrix).weight(), x);
  for (const auto& backend : EveryCpu(Compute::kBf16)) {
    const Matrix got = Product(*backend, PackedMatrix(*backend, matrix).weight(), x);
    ExpectWithin(got, want, BoundOf(x, w, ErrorOf(shape.k)), NameOf(*backend));
    if (HasLanesOrder(*backend)) ExpectSameBits(got, first, NameOf(*backend));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Bf16MatMul,
                         testing::Combine(testing::ValuesIn(kShapes),
                                          testing::Values(WeightFormat::kNf4, WeightFormat::kFp4),
                                          testing::Bool()));

TEST(Bf16MatMulOrder, OfFourBitsIsPairsUpperFirstThenScales) {
  Random random(11);
  const Shape shape = {1, 16, 128, 32};
  const Matrix x(1, shape.k, random);
  const FourBitMatrix matrix =
      Quantized(WeightFormat::kNf4, random.Normals(shape.n * shape.k), shape, false);
  const std::unique_ptr<Backend> cpu = Bf16Cpu("scalar");
  const Matrix got = Product(*cpu, PackedMatrix(*cpu, matrix).weight(), x);
  for (int64_t n = 0; n < shape.n; ++n) {
    const auto term = [&](int64_t k, float sum) {
      const uint8_t byte = matrix.codes[static_cast<size_t>((n * shape.k + k) / 2)];
      const int code = k % 2 == 0 ? byte >> 4 : byte & 15;
      return std::fma(RoundedToBf16(x.At(0, k)),
                      RoundedToBf16(Nf4Codebook()[static_cast<size_t>(code)]), sum);
    };
    float sum = 0;
    for (int64_t g = 0; g < shape.k / shape.group_size; ++g) {
      float t = 0;
      for (int64_t line = g * shape.group_size; line < (g + 1) * shape.group_size; line += 8) {
        for (int64_t j = line; j < line + 4; ++j) t = term(j, term(j + 4, t));
      }
      sum = std::fma(t, GroupScale(matrix, n * (shape.k / shape.group_size) + g), sum);
    }
    EXPECT_EQ(got.At(0, n), sum) << n;
  }
}

TEST(Bf16Weights, MatchTheReferenceAndThemselvesOnEveryRow) {
  for (const Shape& shape : {Shape{1, 16, 64, 0}, Shape{3, 21, 7, 0}, Shape{14, 50, 100, 0},
                             Shape{1, 144, 1021, 0}, Shape{5, 33, 4, 0}, Shape{2, 3, 1, 0}}) {
    Random random(13);
    const Matrix x(shape.m, shape.k, random);
    std::vector<float> w = random.Normals(shape.n * shape.k);
    for (float& value : w) value = RoundedToBf16(value);
    const std::vector<uint16_t> halves = ToHalves(WeightFormat::kBf16, w);
    const auto product = [&](Backend& backend) {
      return Product(backend,
                     PackedMatrix(backend, WeightFormat::kBf16, shape.n, shape.k, halves).weight(),
                     x);
    };
    const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
    const Matrix first = product(*Bf16Cpu("scalar")), want = product(*reference);
    for (const auto& backend : EveryCpu(Compute::kBf16)) {
      const Matrix got = product(*backend);
      ExpectWithin(got, want, BoundOf(x, w, ErrorOf(shape.k)), NameOf(*backend));
      if (HasLanesOrder(*backend)) ExpectSameBits(got, first, NameOf(*backend));
    }
  }
}

TEST(Bf16Mode, LeavesStraddlingGroupsAndFp16WeightsInFp32) {
  Random random(17);
  const Shape shape = {3, 21, 100, 64};
  const Matrix x(shape.m, shape.k, random);
  const std::vector<float> w = random.Normals(shape.n * shape.k);
  const FourBitMatrix straddling = Quantized(WeightFormat::kNf4, w, shape, true);
  const std::vector<uint16_t> halves = ToHalves(WeightFormat::kF16, w);
  const auto backends = {Bf16Cpu(""), Cpu("", 1)};
  std::vector<Matrix> of_codes, of_halves;
  for (const auto& backend : backends) {
    of_codes.push_back(Product(*backend, PackedMatrix(*backend, straddling).weight(), x));
    const PackedMatrix packed(*backend, WeightFormat::kF16, shape.n, shape.k, halves);
    of_halves.push_back(Product(*backend, packed.weight(), x));
  }
  ExpectSameBits(of_codes[0], of_codes[1], "straddling");
  ExpectSameBits(of_halves[0], of_halves[1], "fp16");
}

TEST(Bf16Mode, ARowAloneEqualsTheSameRowAmong67) {
  Random random(31);
  const Shape shape = {67, 144, 256, 64};
  const Matrix x(shape.m, shape.k, random);
  const std::vector<float> values = random.Normals(shape.n * shape.k);
  for (const IsaTable* isa : SupportedIsas()) {
    const std::unique_ptr<Backend> cpu = Bf16Cpu(isa->name, 2);
    const PackedMatrix nf4(*cpu, Quantized(WeightFormat::kNf4, values, shape, true));
    const PackedMatrix half(*cpu, WeightFormat::kBf16, shape.n, shape.k,
                            ToHalves(WeightFormat::kBf16, values));
    for (const PackedMatrix* packed : {&nf4, &half}) {
      const Matrix crowd = Product(*cpu, packed->weight(), x);
      for (int64_t rows = 1; rows <= 16; ++rows) {
        Matrix some(rows, shape.k), want(rows, shape.n);
        for (int64_t r = 0; r < rows; ++r) {
          std::copy_n(x.View().Row(r + 20), shape.k, some.View().Row(r));
          std::copy_n(crowd.View().Row(r + 20), shape.n, want.View().Row(r));
        }
        ExpectSameBits(Product(*cpu, packed->weight(), some), want,
                       absl::StrCat(isa->name, " M=", rows));
      }
    }
  }
}

TEST(Bf16Mode, AddsBiasAndResidual) {
  Random random(37);
  const Shape shape = {5, 40, 128, 64};
  const Matrix x(shape.m, shape.k, random), residual(shape.m, shape.n, random);
  const std::vector<float> bias = random.Normals(shape.n);
  const FourBitMatrix matrix =
      Quantized(WeightFormat::kNf4, random.Normals(shape.n * shape.k), shape, true);
  const std::unique_ptr<Backend> cpu = Bf16Cpu("");
  const PackedMatrix packed(*cpu, matrix);
  const Matrix plain = Product(*cpu, packed.weight(), x);
  const Matrix all =
      Product(*cpu, packed.weight(), x, {bias.data(), DType::kF32, shape.n}, &residual);
  for (int64_t r = 0; r < shape.m; ++r) {
    for (int64_t c = 0; c < shape.n; ++c) {
      EXPECT_EQ(all.At(r, c), residual.At(r, c) + (plain.At(r, c) + bias[static_cast<size_t>(c)]));
    }
  }
}

TEST(Bf16Mode, TakesSubnormalsForZeroAndLetsInfAndNanThrough) {
  const Shape shape = {1, 16, 64, 64};
  const FourBitMatrix matrix =
      Quantized(WeightFormat::kNf4, std::vector<float>(static_cast<size_t>(shape.n * shape.k), 1),
                shape, false);
  for (const IsaTable* isa : SupportedIsas()) {
    const std::unique_ptr<Backend> cpu = Bf16Cpu(isa->name);
    const PackedMatrix packed(*cpu, matrix);
    Matrix x(1, shape.k);
    x.At(0, 5) = 0x1p-130f;
    EXPECT_EQ(Product(*cpu, packed.weight(), x).At(0, 0), 0) << isa->name;
    x.At(0, 5) = std::numeric_limits<float>::infinity();
    EXPECT_EQ(Product(*cpu, packed.weight(), x).At(0, 3), x.At(0, 5)) << isa->name;
    x.At(0, 5) = kNan;
    EXPECT_TRUE(std::isnan(Product(*cpu, packed.weight(), x).At(0, 15))) << isa->name;
  }
}

TEST(Bf16Mode, MixedPartsOfOneCallEachGoTheirWay) {
  Random random(43);
  const Shape shape = {6, 48, 128, 64};
  const Matrix x(shape.m, shape.k, random);
  const std::vector<float> w = random.Normals(shape.n * shape.k, 0.1f);
  const std::unique_ptr<Backend> cpu = Bf16Cpu("", 2);
  const PackedMatrix nf4(*cpu, Quantized(WeightFormat::kNf4, w, shape, true));
  const PackedMatrix half(*cpu, WeightFormat::kF16, shape.n, shape.k,
                          ToHalves(WeightFormat::kF16, w));
  Int8Matrix codes = MakeInt8Matrix(shape.n, shape.k);
  ASSERT_TRUE(QuantizeInt8(0, w, &codes).ok());
  const PackedMatrix int8(*cpu, codes, 1.5f);
  const PackedMatrix* const packed[] = {&nf4, &int8, &half};
  std::vector<Matrix> together(3, Matrix(shape.m, shape.n));
  std::vector<MatMulPart> parts;
  for (size_t i = 0; i < 3; ++i)
    parts.push_back({&packed[i]->weight(), {}, together[i].View(), false});
  {
    const LentScratch scratch(*cpu, {.max_rows = shape.m, .max_k = shape.k});
    cpu->MatMul(x.View(), parts);
  }
  for (size_t i = 0; i < 3; ++i) {
    ExpectSameBits(together[i], Product(*cpu, packed[i]->weight(), x), absl::StrCat("part ", i));
  }
}

}  // namespace
}  // namespace nibble
