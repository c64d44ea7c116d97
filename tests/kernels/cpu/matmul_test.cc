// Products with packed weights: against the reference by a derived bound, and against themselves
// bit by bit over ISA rows, threads and numbers of rows.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/four_bit.h"
#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

struct Shape {
  int64_t m, n, k;
  int32_t group_size;
};
std::ostream& operator<<(std::ostream& os, const Shape& s) {
  return os << "M=" << s.m << " N=" << s.n << " K=" << s.k << " group=" << s.group_size;
}

const Shape kShapes[] = {
    {1, 16, 64, 64},
    {1, 1, 32, 32},
    {3, 5, 64, 32},
    {2, 17, 128, 128},
    {4, 130, 192, 64},
    {5, 33, 256, 256},
    {13, 48, 576, 64},
    {12, 96, 512, 512},
    {25, 64, 1024, 32},
    {1, 144, 4096, 64},
    {2, 16, 4096, 4096},
    {7, 176, 64, 64},
    // Groups straddle rows:
    {1, 16, 172, 64},
    {3, 21, 96, 64},
    {17, 33, 200, 32},
    {2, 3, 1, 64},
    {5, 40, 7, 32},
    {18, 16, 192, 128},
    {1, 48, 300, 4096},
};

FourBitMatrix Quantized(const std::vector<float>& values, const Shape& shape, bool double_quant) {
  absl::StatusOr<FourBitMatrix> matrix = QuantizeFourBit(
      values, shape.n, shape.k, {.group_size = shape.group_size, .double_quant = double_quant});
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return *std::move(matrix);
}

std::vector<float> Dequantized(const FourBitMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.NumValues()));
  DequantizeFourBit(matrix, 0, values);
  return values;
}

// Σ_k |x·w| of every output.
Matrix Magnitudes(const Matrix& x, const std::vector<float>& w, int64_t n) {
  Matrix sums(x.rows(), n);
  for (int64_t m = 0; m < x.rows(); ++m) {
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < x.cols(); ++k) {
        sum += std::abs(double{x.At(m, k)} * double{w[static_cast<size_t>(i * x.cols() + k)]});
      }
      sums.At(m, i) = static_cast<float>(sum);
    }
  }
  return sums;
}

Matrix Product(Backend& backend, const Weight& weight, const Matrix& x, const VectorView& bias = {},
               const Matrix* residual = nullptr) {
  Matrix out(x.rows(), weight.spec.n);
  if (residual != nullptr) out = *residual;
  const MatMulPart part = {&weight, bias, out.View(), residual != nullptr};
  backend.MatMul(x.View(), {&part, 1});
  return out;
}

// Rounding errors of a sum of `additions` fused steps, plus bias, residual and the reference's own
// rounding: each at most kUlp of the magnitudes so far (Higham, "Accuracy and Stability", §3.1).
auto BoundOf(const Matrix& magnitudes, const Matrix& want, int64_t additions) {
  return [&, additions](int64_t r, int64_t c) {
    const double scale = double{magnitudes.At(r, c)} + std::abs(double{want.At(r, c)});
    return static_cast<double>(additions + 4) * kUlp * 1.01 * scale + 1e-37;
  };
}

class Nf4MatMul : public testing::TestWithParam<std::tuple<Shape, bool>> {};

TEST_P(Nf4MatMul, MatchesTheReferenceAndItselfOnEveryRowAndThreadCount) {
  const auto [shape, double_quant] = GetParam();
  Random random(7);
  const Matrix x(shape.m, shape.k, random);
  const FourBitMatrix matrix =
      Quantized(random.Normals(shape.n * shape.k, 0.1f), shape, double_quant);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const Matrix want = Product(*reference, PackedMatrix(*reference, matrix).weight(), x);

  // Aligned: a chain of group_size codes, then one of K/group_size scales. Straddling: one of K
  // after one rounding of code · scale. K + 1 covers both.
  const Matrix magnitudes = Magnitudes(x, Dequantized(matrix), shape.n);
  const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
  const Matrix first = Product(*backends[0], PackedMatrix(*backends[0], matrix).weight(), x);
  ExpectWithin(first, want, BoundOf(magnitudes, want, shape.k + 1), "scalar");
  for (const auto& backend : backends) {
    const PackedMatrix packed(*backend, matrix);
    ExpectSameBits(Product(*backend, packed.weight(), x), first, NameOf(*backend));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Nf4MatMul,
                         testing::Combine(testing::ValuesIn(kShapes), testing::Bool()));

TEST(Nf4MatMulOrder, AlignedGroupsSumCodesThenScales) {
  Random random(11);
  const Shape shape = {1, 16, 128, 32};
  const Matrix x(1, shape.k, random);
  const FourBitMatrix matrix = Quantized(random.Normals(shape.n * shape.k), shape, false);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const Matrix got = Product(*cpu, PackedMatrix(*cpu, matrix).weight(), x);
  for (int64_t n = 0; n < shape.n; ++n) {
    float sum = 0;
    for (int64_t g = 0; g < shape.k / shape.group_size; ++g) {
      float t = 0;
      for (int64_t k = g * shape.group_size; k < (g + 1) * shape.group_size; ++k) {
        const int64_t flat = n * shape.k + k;
        const uint8_t byte = matrix.codes[static_cast<size_t>(flat / 2)];
        const int code = flat % 2 == 0 ? byte >> 4 : byte & 15;
        t = std::fma(x.At(0, k), Nf4Codebook()[static_cast<size_t>(code)], t);
      }
      sum = std::fma(t, GroupScale(matrix, n * (shape.k / shape.group_size) + g), sum);
    }
    EXPECT_EQ(got.At(0, n), sum) << n;
  }
}

TEST(Nf4MatMulOrder, StraddlingGroupsSumDequantizedValues) {
  Random random(12);
  const Shape shape = {1, 5, 100, 64};
  const Matrix x(1, shape.k, random);
  const FourBitMatrix matrix = Quantized(random.Normals(shape.n * shape.k), shape, true);
  const std::vector<float> w = Dequantized(matrix);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const Matrix got = Product(*cpu, PackedMatrix(*cpu, matrix).weight(), x);
  for (int64_t n = 0; n < shape.n; ++n) {
    float sum = 0;
    for (int64_t k = 0; k < shape.k; ++k) {
      sum = std::fma(x.At(0, k), w[static_cast<size_t>(n * shape.k + k)], sum);
    }
    EXPECT_EQ(got.At(0, n), sum) << n;
  }
}

TEST(Nf4MatMulScales, DoubleQuantizedEqualsItsUnNestedTwinBitForBit) {
  for (const Shape& shape : kShapes) {
    Random random(21);
    const Matrix x(shape.m, shape.k, random);
    const FourBitMatrix nested = Quantized(random.Normals(shape.n * shape.k), shape, true);
    FourBitMatrix plain = nested;
    plain.double_quant = false;
    for (int64_t g = 0; g < nested.NumGroups(); ++g) plain.absmax.push_back(GroupScale(nested, g));
    for (const IsaTable* isa : SupportedIsas()) {
      const std::unique_ptr<Backend> cpu = Cpu(isa->name, 1);
      ExpectSameBits(Product(*cpu, PackedMatrix(*cpu, nested).weight(), x),
                     Product(*cpu, PackedMatrix(*cpu, plain).weight(), x), isa->name);
    }
  }
}

TEST(MatMulRows, ARowAloneEqualsTheSameRowAmong67) {
  Random random(31);
  for (const Shape& shape : {Shape{67, 144, 256, 64}, Shape{67, 40, 172, 64}}) {
    const Matrix x(shape.m, shape.k, random);
    const std::vector<float> values = random.Normals(shape.n * shape.k);
    for (const IsaTable* isa : SupportedIsas()) {
      const std::unique_ptr<Backend> cpu = Cpu(isa->name, 2);
      const PackedMatrix nf4(*cpu, Quantized(values, shape, true));
      const PackedMatrix half(*cpu, WeightFormat::kF16, shape.n, shape.k,
                              ToHalves(WeightFormat::kF16, values));
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
}

TEST(MatMulRows, SurvivesZerosOutliersAndTheLargestValues) {
  const Shape shape = {4, 32, 128, 64};
  Random random(41);
  std::vector<float> values = random.Normals(shape.n * shape.k);
  std::fill_n(values.begin(), 64, 0.0f);        // a group of zeros
  std::fill_n(values.begin() + 64, 64, -0.0f);  // and of negative ones
  values[200] = 1e30f;                          // an outlier drowns its group
  values[300] = std::numeric_limits<float>::max();
  Matrix x(shape.m, shape.k, random);
  for (int64_t k = 0; k < shape.k; ++k) x.At(0, k) = 0;
  for (int64_t k = 0; k < shape.k; ++k) x.At(1, k) = -0.0f;
  for (int64_t k = 0; k < shape.k; ++k) x.At(2, k) *= 1e-30f;
  const FourBitMatrix matrix = Quantized(values, shape, false);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const Matrix want = Product(*reference, PackedMatrix(*reference, matrix).weight(), x);
  const Matrix magnitudes = Magnitudes(x, Dequantized(matrix), shape.n);
  const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
  const Matrix first = Product(*backends[0], PackedMatrix(*backends[0], matrix).weight(), x);
  for (int64_t n = 0; n < shape.n; ++n) {
    EXPECT_EQ(first.At(0, n), 0) << n;
    EXPECT_EQ(first.At(1, n), 0) << n;
    const double bound = BoundOf(magnitudes, want, shape.k)(2, n);
    EXPECT_NEAR(double{first.At(2, n)}, double{want.At(2, n)}, bound) << n;
  }
  for (const auto& backend : backends) {
    ExpectSameBits(Product(*backend, PackedMatrix(*backend, matrix).weight(), x), first,
                   NameOf(*backend));
  }
}

// --- FP4, and tables of a matrix's own ---

FourBitMatrix QuantizedAs(WeightFormat format, const Shape& shape, bool double_quant,
                          Random& random) {
  return *QuantizeFourBit(random.Normals(shape.n * shape.k, 0.1f), shape.n, shape.k,
                          {format, shape.group_size, double_quant});
}

// No value is where it was, in the codebook or in the nested map.
void GiveOwnTables(FourBitMatrix* matrix) {
  for (float& value : matrix->codebook) value = 0.75f * value + 0.01f;
  for (float& value : matrix->nested_map) value = 0.5f * value - 0.02f;
  ASSERT_TRUE(NeedsOwnTables(*matrix));
}

class FourBitTables : public testing::TestWithParam<std::tuple<WeightFormat, bool, bool>> {};

TEST_P(FourBitTables, MatchTheReferenceAndThemselvesOnEveryRowAndThreadCount) {
  const auto [format, double_quant, own_tables] = GetParam();
  for (const Shape& shape : {Shape{1, 16, 64, 64}, Shape{13, 130, 192, 32}, Shape{2, 17, 256, 256},
                             Shape{3, 21, 96, 64}, Shape{18, 40, 7, 32}}) {
    Random random(81);
    const Matrix x(shape.m, shape.k, random);
    FourBitMatrix matrix = QuantizedAs(format, shape, double_quant, random);
    if (own_tables) GiveOwnTables(&matrix);
    const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
    const Matrix want = Product(*reference, PackedMatrix(*reference, matrix).weight(), x);
    const Matrix magnitudes = Magnitudes(x, Dequantized(matrix), shape.n);
    const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
    const Matrix first = Product(*backends[0], PackedMatrix(*backends[0], matrix).weight(), x);
    ExpectWithin(first, want, BoundOf(magnitudes, want, shape.k + 1), "scalar");
    for (const auto& backend : backends) {
      ExpectSameBits(Product(*backend, PackedMatrix(*backend, matrix).weight(), x), first,
                     NameOf(*backend));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, FourBitTables,
                         testing::Combine(testing::Values(WeightFormat::kNf4, WeightFormat::kFp4),
                                          testing::Bool(), testing::Bool()));

TEST(FourBitTablesTwin, TheFormatsTablesHeldWithTheMatrixChangeNoBit) {
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    for (const Shape& shape : kShapes) {
      Random random(82);
      const Matrix x(shape.m, shape.k, random);
      const FourBitMatrix matrix = QuantizedAs(format, shape, true, random);
      const std::unique_ptr<Backend> cpu = Cpu("", 2);
      PackedMatrix twin(*cpu, WeightSpec{format, shape.n, shape.k, shape.group_size, true, true});
      Weight weight = twin.weight();
      ASSERT_TRUE(cpu->PackFourBit(matrix, &weight).ok());
      ExpectSameBits(Product(*cpu, weight, x),
                     Product(*cpu, PackedMatrix(*cpu, matrix).weight(), x), Name(format));
    }
  }
}

class HalfMatMul : public testing::TestWithParam<WeightFormat> {};

TEST_P(HalfMatMul, MatchesTheReferenceAndItselfOnEveryRowAndThreadCount) {
  for (const Shape& shape : {Shape{1, 16, 64, 64}, Shape{1, 1, 1, 64}, Shape{3, 130, 100, 64},
                             Shape{29, 80, 576, 64}, Shape{8, 33, 17, 64}}) {
    Random random(51);
    const Matrix x(shape.m, shape.k, random);
    const std::vector<uint16_t> halves =
        ToHalves(GetParam(), random.Normals(shape.n * shape.k, 0.02f));
    std::vector<float> w;
    for (const uint16_t half : halves) {
      w.push_back(GetParam() == WeightFormat::kF16 ? F16ToF32(half) : Bf16ToF32(half));
    }
    const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
    const PackedMatrix packed(*reference, GetParam(), shape.n, shape.k, halves);
    const Matrix want = Product(*reference, packed.weight(), x);
    const Matrix magnitudes = Magnitudes(x, w, shape.n);
    const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
    const PackedMatrix on_first(*backends[0], GetParam(), shape.n, shape.k, halves);
    const Matrix first = Product(*backends[0], on_first.weight(), x);
    ExpectWithin(first, want, BoundOf(magnitudes, want, shape.k), "scalar");
    for (const auto& backend : backends) {
      const PackedMatrix on_this(*backend, GetParam(), shape.n, shape.k, halves);
      ExpectSameBits(Product(*backend, on_this.weight(), x), first, NameOf(*backend));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, HalfMatMul,
                         testing::Values(WeightFormat::kF16, WeightFormat::kBf16));

TEST(HalfMatMulValues, EveryFiniteHalfMultipliesAsTheReferenceSays) {
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBf16}) {
    std::vector<uint16_t> halves;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const auto half = static_cast<uint16_t>(bits);
      const float value = format == WeightFormat::kF16 ? F16ToF32(half) : Bf16ToF32(half);
      halves.push_back(std::isfinite(value) ? half : uint16_t{0});
    }
    Matrix one(1, 1);
    one.At(0, 0) = 1;
    for (const IsaTable* isa : SupportedIsas()) {
      const std::unique_ptr<Backend> cpu = Cpu(isa->name, 1);
      const PackedMatrix packed(*cpu, format, 65536, 1, halves);
      const Matrix got = Product(*cpu, packed.weight(), one);
      for (int64_t n = 0; n < 65536; ++n) {
        const uint16_t half = halves[static_cast<size_t>(n)];
        const float want = format == WeightFormat::kF16 ? F16ToF32(half) : Bf16ToF32(half);
        ASSERT_EQ(got.At(0, n), want) << isa->name << " " << half;
      }
    }
  }
}

TEST(MatMulParts, BiasAndResidualAreAddedInThatOrder) {
  const Shape shape = {5, 40, 64, 64};
  Random random(61);
  const Matrix x(shape.m, shape.k, random);
  const Matrix residual(shape.m, shape.n, random);
  const std::vector<float> bias = random.Normals(shape.n);
  const FourBitMatrix matrix = Quantized(random.Normals(shape.n * shape.k), shape, true);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<uint16_t> halves;
    for (const float b : bias) halves.push_back(F32ToHalf(dtype, b));
    const VectorView view = {dtype == DType::kF32 ? static_cast<const void*>(bias.data())
                                                  : static_cast<const void*>(halves.data()),
                             dtype, shape.n};
    for (const auto& backend : EveryCpu()) {
      const PackedMatrix packed(*backend, matrix);
      const Matrix plain = Product(*backend, packed.weight(), x);
      Matrix want(shape.m, shape.n);
      for (int64_t m = 0; m < shape.m; ++m) {
        for (int64_t n = 0; n < shape.n; ++n) {
          const auto i = static_cast<size_t>(n);
          const float b = dtype == DType::kF32 ? bias[i] : HalfToF32(dtype, halves[i]);
          want.At(m, n) = residual.At(m, n) + (plain.At(m, n) + b);
        }
      }
      ExpectSameBits(Product(*backend, packed.weight(), x, view, &residual), want,
                     absl::StrCat(NameOf(*backend), " ", Name(dtype)));
    }
  }
}

TEST(MatMulParts, OnePassOverSeveralPartsEqualsOneProductEach) {
  Random random(71);
  const int64_t k = 192;
  for (const int64_t m : {1, 9, 50}) {
    const Matrix x(m, k, random);
    for (const auto& backend : EveryCpu()) {
      const PackedMatrix q(*backend, Quantized(random.Normals(150 * k), {m, 150, k, 64}, true));
      const PackedMatrix key(*backend, Quantized(random.Normals(48 * k), {m, 48, k, 64}, false));
      const PackedMatrix v(*backend, WeightFormat::kBf16, 20, k,
                           ToHalves(WeightFormat::kBf16, random.Normals(20 * k)));
      Matrix out_q(m, 150), out_k(m, 48), out_v(m, 20);
      const MatMulPart parts[] = {{&q.weight(), {}, out_q.View(), false},
                                  {&key.weight(), {}, out_k.View(), false},
                                  {&v.weight(), {}, out_v.View(), false}};
      backend->MatMul(x.View(), parts);
      ExpectSameBits(out_q, Product(*backend, q.weight(), x), NameOf(*backend));
      ExpectSameBits(out_k, Product(*backend, key.weight(), x), NameOf(*backend));
      ExpectSameBits(out_v, Product(*backend, v.weight(), x), NameOf(*backend));
    }
  }
}

}  // namespace
}  // namespace nibble
