// LLM.int8(): against bitsandbytes and the reference by derived bounds, and against itself bit by
// bit over ISA rows, threads and numbers of rows.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cpu/packing.h"
#include "kernels/reference/int8.h"
#include "tests/kernels/cpu/cpu_testing.h"
#include "tests/kernels/int8_golden.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

Int8Matrix RandomInt8(int64_t n, int64_t k, Random& random) {
  Int8Matrix matrix = MakeInt8Matrix(n, k);
  const absl::Status status = QuantizeInt8(0, random.Normals(n * k, 0.05f), &matrix);
  EXPECT_TRUE(status.ok()) << status;
  return matrix;
}

// What matmuls of these sizes need of scratch memory, and no more.
BackendLimits LimitsOf(int64_t rows, int64_t k) { return {.max_rows = rows, .max_k = k}; }

Matrix Product(Backend& backend, const Weight& weight, const Matrix& x, const VectorView& bias = {},
               const Matrix* residual = nullptr) {
  const LentScratch scratch(backend, LimitsOf(x.rows(), x.cols()));
  Matrix out(x.rows(), weight.spec.n);
  if (residual != nullptr) out = *residual;
  const MatMulPart part = {&weight, bias, out.View(), residual != nullptr};
  backend.MatMul(x.View(), {&part, 1});
  return out;
}

Matrix RowsOf(const Matrix& all, int64_t first, int64_t count) {
  Matrix some(count, all.cols());
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(all.View().Row(first + r), all.cols(), some.View().Row(r));
  }
  return some;
}

std::span<const float> RowOf(const Matrix& x, int64_t row) {
  return {x.View().Row(row), static_cast<size_t>(x.cols())};
}

// |S·stat·absmax/127²| and Σ |a·w| over the outliers of one row times row n of the matrix.
struct Parts {
  double integers = 0;
  double outliers = 0;
  int num_outliers = 0;
};
Parts PartsOf(const reference::Int8Row& row, const Int8Matrix& matrix, int64_t n) {
  const int8_t* codes = matrix.codes.data() + n * matrix.k;
  const double absmax = double{matrix.absmax[static_cast<size_t>(n)]};
  Parts parts;
  double sum = 0;
  for (size_t k = 0; k < row.codes.size(); ++k) {
    sum += row.codes[k] * codes[k];
    parts.outliers += std::abs(double{row.outliers[k]} * codes[k]) * absmax / 127;
    parts.num_outliers += row.is_outlier[k] ? 1 : 0;
  }
  parts.integers = std::abs(sum) * double{row.stat} * absmax / (127 * 127);
  return parts;
}

// Roundings of the definition, each at most kUlp of the magnitudes so far: S to fp32, two products,
// the constant, one fused step; two products and the constant of an outlier's weight; a fused step
// for each outlier; the old value; the reference's own result.
auto BoundOf(const Matrix& x, const Int8Matrix& matrix, float threshold, const Matrix& want,
             double others = 0) {
  return [&, threshold, others](int64_t m, int64_t n) {
    const Parts parts = PartsOf(reference::TakeApart(RowOf(x, m), threshold), matrix, n);
    const double scale = parts.integers + parts.outliers + others + std::abs(double{want.At(m, n)});
    return (parts.num_outliers + 10) * kUlp * 1.01 * scale + 1e-37;
  };
}

struct Shape {
  int64_t m, n, k;
};
std::ostream& operator<<(std::ostream& os, const Shape& s) {
  return os << "M=" << s.m << " N=" << s.n << " K=" << s.k;
}

class Int8MatMul : public testing::TestWithParam<std::tuple<Shape, float>> {};

TEST_P(Int8MatMul, MatchesTheReferenceAndItselfOnEveryRowAndThreadCount) {
  const auto [shape, threshold] = GetParam();
  Random random(7);
  const Matrix x(shape.m, shape.k, random,
                 2);  // normal numbers of deviation 2 reach 6 now and then
  const Int8Matrix matrix = RandomInt8(shape.n, shape.k, random);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const Matrix want = Product(*reference, PackedMatrix(*reference, matrix, threshold).weight(), x);
  const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
  const PackedMatrix on_first(*backends[0], matrix, threshold);
  const Matrix first = Product(*backends[0], on_first.weight(), x);
  ExpectWithin(first, want, BoundOf(x, matrix, threshold, want), "scalar");
  for (const auto& backend : backends) {
    const PackedMatrix packed(*backend, matrix, threshold);
    ExpectSameBits(Product(*backend, packed.weight(), x), first, NameOf(*backend));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Int8MatMul,
                         testing::Combine(testing::Values(Shape{1, 16, 4}, Shape{1, 1, 1},
                                                          Shape{3, 5, 7}, Shape{2, 17, 130},
                                                          Shape{4, 130, 192}, Shape{13, 48, 576},
                                                          Shape{25, 64, 1023}, Shape{1, 144, 4096},
                                                          Shape{7, 176, 66}, Shape{40, 33, 100}),
                                          testing::Values(0.0f, 6.0f, 1.0f)));

// The bound, from the roundings of bitsandbytes' CPU path beside ours:
//   - its constant is 6.200124e-05, ours fp32(1/127²): 1.8e-5 of the integers' part;
//   - it rounds integers' part + bias to fp16, and the sum with the outliers' part again: 2^-11 of
//     each;
//   - it rounds each outlier's weight to fp16 (2^-11 of a·w), and adds their products in fp16 at
//     worst: 2^-11 of Σ|a·w| for each outlier;
//   - fp16's subnormals: half an ulp of them, 2^-25, at each of those roundings, times |a| <= 64
//     for the weights. The fp32 roundings on both sides are far below.
TEST(Int8Golden, EqualsBitsandbytesRowByRowWithinItsRoundings) {
  for (const ProductGolden& golden : ReadInt8Goldens().products) {
    const Int8Matrix matrix = {golden.n, golden.k, golden.codes, golden.absmax};
    Matrix x(golden.m, golden.k);
    for (int64_t m = 0; m < golden.m; ++m) {
      std::copy_n(golden.x.data() + m * golden.k, golden.k, x.View().Row(m));
    }
    const VectorView bias = {golden.has_bias ? golden.bias.data() : nullptr, DType::kF32, golden.n};
    const std::unique_ptr<Backend> cpu = Cpu("", 1);
    const PackedMatrix packed(*cpu, matrix, golden.threshold);
    const Matrix got = Product(*cpu, packed.weight(), x, bias);
    for (int64_t m = 0; m < golden.m; ++m) {
      const reference::Int8Row row = reference::TakeApart(RowOf(x, m), golden.threshold);
      ASSERT_EQ(row.stat, golden.x_stats[static_cast<size_t>(m)]) << golden.name;
      for (int64_t n = 0; n < golden.n; ++n) {
        const double want = double{golden.out[static_cast<size_t>(m * golden.n + n)]};
        const Parts parts = PartsOf(row, matrix, n);
        const double bias_n = std::abs(double{golden.bias[static_cast<size_t>(n)]});
        const double half_ulp = 0x1p-11 * 1.01;
        const double bound = 1.9e-5 * parts.integers + half_ulp * (parts.integers + bias_n) +
                             half_ulp * std::abs(want) +
                             half_ulp * (parts.num_outliers + 1) * parts.outliers +
                             0x1p-25 * (2 + 65 * parts.num_outliers);
        ASSERT_LE(std::abs(double{got.At(m, n)} - want), bound)
            << golden.name << " [" << m << "," << n << "]: got " << got.At(m, n) << ", want "
            << want;
      }
    }
  }
}

// Code k of a row of x: rows without VNNI keep 16 bits each, the middle two of every four
// exchanged; the others a byte each.
int CodeOfRow(const IsaTable& isa, const std::vector<int16_t>& codes, int64_t k) {
  const std::string name = isa.name;
  if (name == "scalar" || name == "avx2" || name == "avx512") {
    return codes[static_cast<size_t>(k / 4 * 4 + (k % 4 == 1 ? 2 : k % 4 == 2 ? 1 : k % 4))];
  }
  return reinterpret_cast<const int8_t*>(codes.data())[k];
}

TEST(Int8Golden, RowsOfXHaveTheCodesOfBitsandbytesOnEveryIsa) {
  for (const ProductGolden& golden : ReadInt8Goldens().products) {
    const int64_t stride = Int8Stride(golden.k);
    for (const IsaTable* isa : SupportedIsas()) {
      std::vector<int16_t> codes(static_cast<size_t>(stride), int16_t{-1});
      std::vector<uint64_t> outliers(static_cast<size_t>(stride / kMaskBits));
      float stat = 0;
      int32_t count = 0;
      const Int8Rows rows = {codes.data(), outliers.data(), &stat, &count, stride};
      for (int64_t m = 0; m < golden.m; ++m) {
        isa->int8_input(golden.x.data() + m * golden.k, golden.k, golden.threshold, 0, &rows);
        EXPECT_EQ(stat, golden.x_stats[static_cast<size_t>(m)]) << golden.name << " " << isa->name;
        for (int64_t k = 0; k < CeilDiv(golden.k, 16) * 16; ++k) {
          const int want = k < golden.k ? golden.x_codes[static_cast<size_t>(m * golden.k + k)] : 0;
          ASSERT_EQ(CodeOfRow(*isa, codes, k), want)
              << golden.name << " " << isa->name << " [" << m << "," << k << "]";
        }
      }
    }
  }
}

TEST(Int8MatMulInput, TakesARowApartAsTheReferenceDoes) {
  Random random(3);
  std::vector<float> x = random.Normals(203, 3);
  x[7] = 6;                           // at the threshold
  x[8] = std::nextafter(6.0f, 0.0f);  // below it, until fp16 rounds it
  x[9] = -5.99f;
  x[10] = 1e6f;    // not in fp16: kept
  x[11] = -65519;  // in fp16: 65504
  x[12] = kInf;
  x[13] = kNan;
  x[202] = -kInf;
  for (const float threshold : {0.0f, 6.0f, 3.3f, 1e-9f}) {
    const reference::Int8Row want = reference::TakeApart(x, threshold);
    for (const IsaTable* isa : SupportedIsas()) {
      const int64_t stride = Int8Stride(203);
      std::vector<int16_t> codes(static_cast<size_t>(stride));
      std::vector<uint64_t> outliers(static_cast<size_t>(stride / kMaskBits));
      float stat = 0;
      int32_t count = 0;
      const Int8Rows rows = {codes.data(), outliers.data(), &stat, &count, stride};
      isa->int8_input(x.data(), 203, threshold, 0, &rows);
      EXPECT_EQ(stat, want.stat) << isa->name << " " << threshold;
      EXPECT_EQ(count, std::count(want.is_outlier.begin(), want.is_outlier.end(), true));
      for (size_t k = 0; k < x.size(); ++k) {
        ASSERT_EQ(CodeOfRow(*isa, codes, static_cast<int64_t>(k)), want.codes[k])
            << isa->name << " " << threshold << " " << k;
        ASSERT_EQ((outliers[k / 64] >> (k % 64) & 1) != 0, want.is_outlier[k])
            << isa->name << " " << threshold << " " << k;
      }
    }
  }
}

// The definition of backend.h, step by step in fp32.
TEST(Int8MatMulOrder, IsWhatTheContractSays) {
  Random random(11);
  const int64_t n = 37, k = 130;
  const Matrix x(2, k, random, 3), residual(2, n, random);
  const std::vector<float> bias = random.Normals(n);
  const Int8Matrix matrix = RandomInt8(n, k, random);
  const std::unique_ptr<Backend> cpu = Cpu("", 2);
  const PackedMatrix packed(*cpu, matrix, 6);
  const Matrix got = Product(*cpu, packed.weight(), x, {bias.data(), DType::kF32, n}, &residual);
  for (int64_t m = 0; m < 2; ++m) {
    const reference::Int8Row row = reference::TakeApart(RowOf(x, m), 6);
    ASSERT_TRUE(std::count(row.is_outlier.begin(), row.is_outlier.end(), true) > 0);
    for (int64_t i = 0; i < n; ++i) {
      const float absmax = matrix.absmax[static_cast<size_t>(i)];
      int32_t sum = 0;
      for (int64_t j = 0; j < k; ++j) {
        sum += row.codes[static_cast<size_t>(j)] * matrix.codes[static_cast<size_t>(i * k + j)];
      }
      float out = std::fma(static_cast<float>(sum) * row.stat * absmax,
                           std::bit_cast<float>(0x38820610u), bias[static_cast<size_t>(i)]);
      for (int64_t j = 0; j < k; ++j) {
        if (!row.is_outlier[static_cast<size_t>(j)]) continue;
        const float code = matrix.codes[static_cast<size_t>(i * k + j)];
        out = std::fma(row.outliers[static_cast<size_t>(j)],
                       code * absmax * std::bit_cast<float>(0x3c010204u), out);
      }
      ASSERT_EQ(got.At(m, i), residual.At(m, i) + out) << m << " " << i;
    }
  }
}

TEST(Int8MatMulRows, ARowAloneEqualsTheSameRowAmongOutliersAndNaNs) {
  Random random(31);
  const int64_t n = 144, k = 200;
  Matrix x(67, k, random, 2);
  for (int64_t m = 0; m < 67; m += 3) x.At(m, random.Below(k)) = 50;
  for (int64_t j = 0; j < k; ++j) x.At(40, j) = kNan;
  const Int8Matrix matrix = RandomInt8(n, k, random);
  for (const IsaTable* isa : SupportedIsas()) {
    const std::unique_ptr<Backend> cpu = Cpu(isa->name, 2);
    const PackedMatrix packed(*cpu, matrix, 6);
    const Matrix crowd = Product(*cpu, packed.weight(), x);
    for (int64_t i = 0; i < n; ++i) ASSERT_TRUE(std::isnan(crowd.At(40, i)));
    for (int64_t rows = 1; rows <= 16; ++rows) {
      ExpectSameBits(Product(*cpu, packed.weight(), RowsOf(x, 20, rows)), RowsOf(crowd, 20, rows),
                     absl::StrCat(isa->name, " M=", rows));
    }
  }
}

TEST(Int8MatMulRows, ZerosLeaveTheBiasAndNonFiniteValuesShow) {
  Random random(41);
  const int64_t n = 20, k = 48;
  Matrix x(4, k);
  x.At(1, 5) = kNan;
  x.At(2, 6) = kInf;
  for (int64_t j = 0; j < k; ++j) x.At(3, j) = 100;  // all of them outliers
  const std::vector<float> bias = random.Normals(n);
  Int8Matrix matrix = RandomInt8(n, k, random);
  matrix.codes[6] = 0;  // Inf · 0
  for (const float threshold : {0.0f, 6.0f}) {
    for (const auto& backend : EveryCpu()) {
      const PackedMatrix packed(*backend, matrix, threshold);
      const Matrix out = Product(*backend, packed.weight(), x, {bias.data(), DType::kF32, n});
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_EQ(out.At(0, i), bias[static_cast<size_t>(i)]);
        EXPECT_TRUE(std::isnan(out.At(1, i)));
        EXPECT_FALSE(std::isfinite(out.At(2, i)));
        EXPECT_TRUE(std::isfinite(out.At(3, i)));
      }
      EXPECT_TRUE(std::isnan(out.At(2, 0)));
    }
  }
}

TEST(Int8MatMulSums, TheWidestMatrixOfTheLargestCodesIsExact) {
  const int64_t k = kMaxInt8Columns;
  Int8Matrix matrix = MakeInt8Matrix(2, k);
  std::fill_n(matrix.codes.begin(), k, int8_t{-128});  // as only a foreign file may hold
  std::fill_n(matrix.codes.begin() + k, k, int8_t{127});
  matrix.absmax = {127, 127};
  Matrix x(1, k);
  for (int64_t j = 0; j < k; ++j) x.At(0, j) = 127;
  for (const IsaTable* isa : SupportedIsas()) {
    const std::unique_ptr<Backend> cpu = Cpu(isa->name, 1);
    const Matrix out = Product(*cpu, PackedMatrix(*cpu, matrix, 0).weight(), x);
    EXPECT_NEAR(double{out.At(0, 0)}, -128.0 * 127 * static_cast<double>(k), 1e3) << isa->name;
    EXPECT_NEAR(double{out.At(0, 1)}, 127.0 * 127 * static_cast<double>(k), 1e3) << isa->name;
  }
}

TEST(Int8MatMulParts, SeveralWeightsOfMixedFormatsShareOneX) {
  Random random(61);
  const int64_t m = 14, k = 128;
  const Matrix x(m, k, random, 2);
  const Int8Matrix q = RandomInt8(80, k, random), v = RandomInt8(17, k, random);
  const std::vector<uint16_t> halves = ToHalves(WeightFormat::kF16, random.Normals(32 * k));
  for (const auto& backend : EveryCpu()) {
    const PackedMatrix on_q(*backend, q, 6), on_v(*backend, v, 6);
    const PackedMatrix on_k(*backend, WeightFormat::kF16, 32, k, halves);
    Matrix out_q(m, 80), out_k(m, 32), out_v(m, 17);
    const MatMulPart parts[] = {{&on_q.weight(), {}, out_q.View(), false},
                                {&on_k.weight(), {}, out_k.View(), false},
                                {&on_v.weight(), {}, out_v.View(), false}};
    {
      const LentScratch scratch(*backend, LimitsOf(m, k));
      backend->MatMul(x.View(), parts);
    }
    ExpectSameBits(out_q, Product(*backend, on_q.weight(), x), NameOf(*backend));
    ExpectSameBits(out_k, Product(*backend, on_k.weight(), x), NameOf(*backend));
    ExpectSameBits(out_v, Product(*backend, on_v.weight(), x), NameOf(*backend));
  }
}

TEST(Int8MatMulScratch, IsAskedForOnlyWhenThereIsInt8) {
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  BackendLimits limits = LimitsOf(64, 1000);
  limits.int8 = false;
  const int64_t without = cpu->ScratchBytes(limits);
  limits.int8 = true;
  // stats and counts, 16-bit codes and one bit for each of 1024 k.
  EXPECT_EQ(cpu->ScratchBytes(limits), std::max<int64_t>(without, 64 * (8 + 2048 + 128)));
  EXPECT_LT(without, cpu->ScratchBytes(limits));
}

TEST(Int8MatMulDeathTest, AbortsOnPartsOfDifferentThresholdsAndMissingScratch) {
  Random random(71);
  const Int8Matrix matrix = RandomInt8(16, 64, random);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const PackedMatrix a(*cpu, matrix, 6), b(*cpu, matrix, 5);
  const Matrix x(1, 64, random);
  Matrix out(1, 16);
  const MatMulPart parts[] = {{&a.weight(), {}, out.View(), false},
                              {&b.weight(), {}, out.View(), false}};
  EXPECT_DEATH(cpu->MatMul(x.View(), parts), "one outlier_threshold");
  EXPECT_DEATH(cpu->MatMul(x.View(), {parts, 1}), "bytes of scratch memory");
}

}  // namespace
}  // namespace nibble
