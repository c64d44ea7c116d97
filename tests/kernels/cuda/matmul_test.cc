// Every way a product can go, through the one entry: the exact mode against the CPU backend bit for
// bit, the tensor cores' against double by derived bounds, rows alone and in company.
#include "kernels/cuda/matmul.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "tests/kernels/cuda/matmul_products.h"

namespace nibble::cuda {
namespace {

// What 16-bit operands cost: an element of x errs by x·of_x + (its row's largest)·of_row, one of w
// by w·of_w + (its row's largest)·of_feature.
struct Rounding {
  double of_x, of_row, of_w, of_feature;
};
// Prepared rows (prepare.h); fp16 codes, or fp16 values of which the largest of a row is 2^-8 or
// more, with steps of 2^-24 at worst.
constexpr Rounding kFourBit = {0x1p-11, 0x1p-21, 0x1p-11, 0x1p-17};
constexpr Rounding kHalfRows = {0x1p-11, 0x1p-21, 0, 0};
constexpr Rounding kBf16Rows = {0x1p-8, 0, 0, 0};

// |got - exact| <= the operands' roundings + those of the sums: K products in some order, scales,
// bias, old value, each step cut at 2^-23 of the magnitudes so far at worst.
void ExpectProduct(const Products& products, size_t i, const Matrix& x, const Rounding& rounding,
                   const Matrix& got) {
  const HostPart& part = products.part(i);
  const std::vector<float> w = part.Values();
  const auto largest = [&](const float* row) {
    float most = 0;
    for (int64_t k = 0; k < part.k; ++k) most = std::max(most, std::abs(row[k]));
    return double{most};
  };
  EXPECT_TRUE(got.MarginIsIntact());
  for (int64_t n = 0; n < part.n; ++n) {
    const float* const wn = w.data() + n * part.k;
    const double most_w = largest(wn), bias = products.bias(i).At(n);
    for (int64_t m = 0; m < x.rows(); ++m) {
      const float* const xm = x.View().Row(m);
      const double most_x = largest(xm);
      const double old = part.accumulate ? double{products.old(i).At(m, n)} : 0.0;
      double want = bias + old, magnitude = std::abs(bias) + std::abs(old), error = 0;
      for (int64_t k = 0; k < part.k; ++k) {
        const double a = std::abs(double{xm[k]}), b = std::abs(double{wn[k]});
        want += double{xm[k]} * double{wn[k]};
        magnitude += a * b;
        const double ea = rounding.of_x * a + rounding.of_row * most_x;
        const double eb = rounding.of_w * b + rounding.of_feature * most_w;
        error += ea * b + eb * a + ea * eb;
      }
      const double bound =
          error + static_cast<double>(part.k + 24) * 0x1p-23 * (magnitude + error) + 1e-30;
      ASSERT_LE(std::abs(double{got.At(m, n)} - want), bound)
          << "part " << i << " [" << m << "," << n << "]: got " << got.At(m, n) << ", want "
          << want;
    }
  }
}

Matrix RandomRows(int64_t m, int64_t k, Random& random) {
  Matrix x(m, k, random.Below(5));
  for (int64_t r = 0; r < m; ++r) {
    const float scale = random.Below(4) == 0 ? std::ldexp(1.0f, -20) : 1.0f;
    for (int64_t c = 0; c < k; ++c) x.At(r, c) = scale * random.Normal();
  }
  return x;
}

int64_t RandomRowCount(Random& random) {
  return random.Below(5) == 0 ? 1 + random.Below(70) : 1 + random.Below(10);
}

// Groups of every size that lie in rows, or straddle them.
FourBitShape RandomShape(bool fits, Random& random) {
  constexpr int32_t kGroups[] = {32, 64, 64, 128, 256};
  FourBitShape shape;
  shape.group = random.Below(25) == 0 ? 4096 : kGroups[random.Below(5)];
  shape.k = fits ? shape.group * (1 + random.Below(std::max<int64_t>(1, 512 / shape.group)))
                 : 1 + random.Below(300);
  shape.n = 1 + random.Below(100);
  shape.format = random.Below(3) == 0 ? WeightFormat::kFp4 : WeightFormat::kNf4;
  shape.double_quant = random.Below(2) == 0;
  shape.own_tables = random.Below(5) == 0;
  return shape;
}

std::vector<HostPart> RandomFourBitParts(bool fits, Random& random) {
  FourBitShape shape = RandomShape(fits, random);
  std::vector<HostPart> parts;
  for (int64_t i = random.Below(3) == 0 ? random.Below(5) : 0; i >= 0; --i) {
    parts.push_back(RandomFourBit(shape, random));
    parts.back().accumulate = random.Below(3) == 0;
    const FourBitShape next = RandomShape(fits, random);
    shape.n = next.n;
    if (random.Below(2) == 0) {  // another group size, form of scales or table: a launch of its own
      shape.format = next.format;
      shape.double_quant = next.double_quant;
      shape.own_tables = next.own_tables;
      if (!fits || shape.k % next.group == 0) shape.group = next.group;
    }
  }
  return parts;
}

using CudaMatMul = CudaTest;

void ExpectFourBitPath(MatMulPath path, bool fits, bool batch_invariant, int cases) {
  Random random(static_cast<uint32_t>(path) + 10);
  for (int i = 0; i < cases; ++i) {
    std::vector<HostPart> parts = RandomFourBitParts(fits, random);
    const Matrix x = RandomRows(RandomRowCount(random), parts[0].k, random);
    SCOPED_TRACE(absl::StrCat(Name(path), " case ", i, " M=", x.rows(), " K=", x.cols(),
                              " N=", parts[0].n, " group=", parts[0].four_bit->group_size));
    SetMachineSeed(static_cast<uint64_t>(i % 7 + 1));
    Products products(Only(path), false, batch_invariant, std::move(parts), x.rows(), random);
    const std::vector<Matrix> got = products.Run(x);
    for (size_t p = 0; p < products.size(); ++p) {
      ExpectProduct(products, p, x, kFourBit, got[p]);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaMatMul, StreamsFourBits) { ExpectFourBitPath(MatMulPath::kStream, true, false, 100); }
TEST_F(CudaMatMul, StagesFourBits) { ExpectFourBitPath(MatMulPath::kStaged, true, false, 100); }
TEST_F(CudaMatMul, StagesFourBitsWithBatchInvariance) {
  ExpectFourBitPath(MatMulPath::kStaged, true, true, 60);
}
TEST_F(CudaMatMul, MultipliesFourBitsOnHopper) {
  if (traits().compute_major != 9) GTEST_SKIP() << "needs compute capability 9.0";
  ExpectFourBitPath(MatMulPath::kHopper, true, false, 100);
}
TEST_F(CudaMatMul, UnpacksFourBits) { ExpectFourBitPath(MatMulPath::kUnpack, true, false, 100); }
TEST_F(CudaMatMul, UnpacksFourBitsWhoseGroupsStraddleRows) {
  ExpectFourBitPath(MatMulPath::kUnpack, false, false, 60);
}
TEST_F(CudaMatMul, TakesTheGeneralPathWhereGroupsStraddleRows) {
  ExpectFourBitPath(MatMulPath::kGeneral, false, false, 60);
}

TEST_F(CudaMatMul, ExactProductsOfEveryFormatEqualTheCpuBitForBit) {
  Random random(2);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  for (int i = 0; i < 250; ++i) {
    std::vector<HostPart> parts = RandomFourBitParts(random.Below(2) == 0, random);
    for (int64_t extra = random.Below(4); extra > 0; --extra) {
      constexpr WeightFormat kOthers[] = {WeightFormat::kInt8, WeightFormat::kBf16,
                                          WeightFormat::kF16};
      parts.push_back(
          RandomPart(kOthers[random.Below(3)], 1 + random.Below(80), parts[0].k, random));
      parts.back().accumulate = random.Below(3) == 0;
    }
    const Matrix x = RandomRows(RandomRowCount(random), parts[0].k, random);
    Products products(Only(MatMulPath::kStream), true, random.Below(2) == 0, std::move(parts),
                      x.rows(), random);
    const std::vector<Matrix> got = products.Run(x), want = products.OnBackend(*cpu, x);
    for (size_t p = 0; p < products.size(); ++p) {
      ExpectSameNumbers(got[p], want[p],
                        absl::StrCat("case ", i, " part ", p, " ", Name(products.part(p).format)));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaMatMul, Int8EqualsTheCpuBitForBitOnEveryWay) {
  Random random(3);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  for (int i = 0; i < 150; ++i) {
    const int64_t k = 1 + random.Below(300);
    std::vector<HostPart> parts;
    for (int64_t j = random.Below(3); j >= 0; --j) {
      const int64_t n = random.Below(2) == 0 ? 4 * (1 + random.Below(40)) : 1 + random.Below(100);
      parts.push_back(RandomPart(WeightFormat::kInt8, n, k, random));
      parts.back().accumulate = random.Below(3) == 0;
    }
    const Matrix x = RandomRows(RandomRowCount(random), k, random);
    // Our own kernel, or cuBLAS.
    const MatMulPath way = random.Below(2) == 0 ? MatMulPath::kStream : MatMulPath::kUnpack;
    Products products(Only(way), false, random.Below(2) == 0, std::move(parts), x.rows(), random);
    const std::vector<Matrix> got = products.Run(x), want = products.OnBackend(*cpu, x);
    for (size_t p = 0; p < products.size(); ++p) {
      ExpectSameNumbers(got[p], want[p], absl::StrCat("case ", i, " part ", p));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaMatMul, SixteenBitsGoOurWayOrThroughCublas) {
  Random random(4);
  for (int i = 0; i < 200; ++i) {
    const WeightFormat format = random.Below(2) == 0 ? WeightFormat::kBf16 : WeightFormat::kF16;
    const MatMulPath way = random.Below(2) == 0 ? MatMulPath::kStream : MatMulPath::kUnpack;
    const int64_t k = random.Below(2) == 0 ? 8 * (1 + random.Below(50)) : 1 + random.Below(300);
    std::vector<HostPart> parts;
    for (int64_t j = random.Below(3); j >= 0; --j) {
      parts.push_back(RandomPart(format, 1 + random.Below(100), k, random));
      parts.back().accumulate = random.Below(3) == 0;
    }
    const Matrix x = RandomRows(RandomRowCount(random), k, random);
    SCOPED_TRACE(absl::StrCat(Name(format), " ", Name(way), " M=", x.rows(), " K=", k));
    Products products(Only(way), false, false, std::move(parts), x.rows(), random);
    const std::vector<Matrix> got = products.Run(x);
    for (size_t p = 0; p < products.size(); ++p) {
      ExpectProduct(products, p, x, format == WeightFormat::kF16 ? kHalfRows : kBf16Rows, got[p]);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaMatMul, PartsOfEveryFormatShareOneX) {
  Random random(5);
  const int64_t k = 128;
  const MatMulTable& table = TableFor(traits().name, traits().compute_major * 10);
  for (const int64_t m : {1, 9, 40, 600}) {
    std::vector<HostPart> parts;
    for (const WeightFormat format :
         {WeightFormat::kNf4, WeightFormat::kNf4, WeightFormat::kFp4, WeightFormat::kInt8,
          WeightFormat::kBf16, WeightFormat::kF16, WeightFormat::kInt8, WeightFormat::kNf4}) {
      parts.push_back(RandomPart(format, 1 + random.Below(40), k, random));
    }
    const Matrix x = RandomRows(m, k, random);
    Products products(table, false, false, parts, m, random);
    const std::unique_ptr<Backend> cpu = Cpu("", 1);
    const std::vector<Matrix> got = products.Run(x), want = products.OnBackend(*cpu, x);
    for (size_t p = 0; p < products.size(); ++p) {
      const WeightFormat format = parts[p].format;
      if (format == WeightFormat::kInt8) {
        ExpectSameNumbers(got[p], want[p], "INT8");
      } else {
        ExpectProduct(products, p, x,
                      IsFourBit(format)              ? kFourBit
                      : format == WeightFormat::kF16 ? kHalfRows
                                                     : kBf16Rows,
                      got[p]);
      }
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaMatMul, WithBatchInvarianceARowAloneEqualsTheSameRowAmongSeventy) {
  Random random(6);
  for (const bool fits : {true, false}) {
    std::vector<HostPart> parts = {
        RandomFourBit({70, fits ? 576 : 100}, random),
        RandomFourBit({33, fits ? 576 : 100, 64, WeightFormat::kFp4, true}, random)};
    for (const WeightFormat format :
         {WeightFormat::kBf16, WeightFormat::kF16, WeightFormat::kInt8}) {
      parts.push_back(RandomPart(format, 50, parts[0].k, random));
    }
    const Matrix x = RandomRows(70, parts[0].k, random);
    const MatMulTable& table = TableFor(traits().name, traits().compute_major * 10);
    Products products(table, false, true, std::move(parts), 70, random);
    const std::vector<Matrix> all = products.Run(x);
    for (int64_t count = 1; count <= 70; count += count < 18 ? 1 : 13) {
      const int64_t first = random.Below(71 - count);
      const std::vector<Matrix> some = products.Run(x, first, count);
      for (size_t p = 0; p < products.size(); ++p) {
        ExpectSameNumbers(some[p], RowsOf(all[p], first, count),
                          absl::StrCat("rows ", first, "+", count, " part ", p));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(CudaMatMul, WeightsBeyondTheRangeOfFp16AreUnpackedAllTheSame) {
  Random random(8);
  for (const float scale : {1e6f, 1e-7f, 1e-30f}) {
    for (const bool double_quant : {false, true}) {
      FourBitShape shape = {40, 256};
      shape.double_quant = double_quant;
      const HostPart part = RandomFourBit(shape, random, scale);
      Matrix x(3, 256, random);
      for (int64_t k = 0; k < 256; ++k) x.At(1, k) *= 1e20f;
      Products products(Only(MatMulPath::kUnpack), false, false, {part}, 3, random);
      ExpectProduct(products, 0, x, kFourBit, products.Run(x)[0]);
    }
  }
}

TEST_F(CudaMatMul, UnpacksInPiecesAndAddsInSlabs) {
  Random random(9);
  // More than a piece's memory of weights, whatever the GPU; and more rows than a slab has.
  for (const auto& [m, n, k] :
       {std::tuple<int64_t, int64_t, int64_t>{2, 400, 32768}, {1030, 20, 64}}) {
    for (const bool accumulate : {false, true}) {
      HostPart part = RandomFourBit({n, k}, random);
      part.accumulate = accumulate;
      const Matrix x = RandomRows(m, k, random);
      Products products(Only(MatMulPath::kUnpack), false, false, {part}, m, random);
      ExpectProduct(products, 0, x, kFourBit, products.Run(x)[0]);
    }
  }
}

TEST_F(CudaMatMul, Int8SumsOfMoreThanASlabEqualTheCpuBitForBit) {
  Random random(10);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const HostPart part = RandomPart(WeightFormat::kInt8, 8200, 8, random);
  const Matrix x = RandomRows(1025, 8, random);
  Products products(Only(MatMulPath::kUnpack), true, false, {part}, x.rows(), random);
  ExpectSameNumbers(products.Run(x)[0], products.OnBackend(*cpu, x)[0], "");
}

// How many launches and products a call takes, which also says that it went the way asked for.
TEST_F(CudaMatMul, AppendsNoMoreThanItsWayTakes) {
  Random random(11);
  const auto entries = [&](MatMulPath path, bool exact, const std::vector<HostPart>& parts) {
    Products products(Only(path), exact, false, parts, 4, random, /*has_bias=*/false);
    return products.EntriesFor(Matrix(4, parts[0].k, random));
  };
  const auto some = [&](WeightFormat format, int count, int64_t k = 128) {
    return std::vector<HostPart>(static_cast<size_t>(count), RandomPart(format, 20, k, random));
  };
  for (const int count : {1, 3, 4}) {
    const std::vector<HostPart> four_bit = some(WeightFormat::kNf4, count);
    EXPECT_EQ(entries(MatMulPath::kStream, false, four_bit), 2);  // rows of x, the product
    EXPECT_EQ(entries(MatMulPath::kStaged, false, four_bit), 2);
    EXPECT_EQ(entries(MatMulPath::kHopper, false, four_bit), 2);
    // Rows of x; then of each part scales, values, product, the rest.
    EXPECT_EQ(entries(MatMulPath::kUnpack, false, four_bit), 1 + 4 * count);
    EXPECT_EQ(entries(MatMulPath::kStream, true, four_bit), 1);
    EXPECT_EQ(entries(MatMulPath::kGeneral, false, some(WeightFormat::kNf4, count, 100)), 1);
    EXPECT_EQ(entries(MatMulPath::kStream, false, some(WeightFormat::kBf16, count)), 1);
    EXPECT_EQ(entries(MatMulPath::kStream, false, some(WeightFormat::kF16, count)), 2);
    EXPECT_EQ(entries(MatMulPath::kStream, true, some(WeightFormat::kF16, count)), 1);
    EXPECT_EQ(entries(MatMulPath::kUnpack, false, some(WeightFormat::kBf16, count)), 1 + count);
    EXPECT_EQ(entries(MatMulPath::kUnpack, false, some(WeightFormat::kF16, count)), 1 + 2 * count);
    for (const MatMulPath path : {MatMulPath::kStream, MatMulPath::kUnpack}) {
      EXPECT_EQ(entries(path, false, some(WeightFormat::kInt8, count)), 1 + 2 * count);
    }
  }
  EXPECT_EQ(entries(MatMulPath::kStream, false, some(WeightFormat::kNf4, 5)), 3);
}

TEST_F(CudaMatMul, ScratchMemoryGrowsWithRowsOnly) {
  const auto bytes = [&](int64_t rows, int64_t k, bool int8, bool exact) {
    return MatMulScratchBytes(traits(), {.max_rows = rows, .max_k = k, .int8 = int8}, exact);
  };
  EXPECT_EQ(bytes(512, 4096, false, true), kMatMulZeroedBytes);
  const int64_t fixed = bytes(0, 4096, false, false);
  EXPECT_LE(fixed, int64_t{58} << 20);
  // fp16 rows and a scale each; INT8's rows are smaller.
  EXPECT_EQ(bytes(512, 4096, false, false) - fixed, 512 * (2 * 4096 + 4));
  EXPECT_EQ(bytes(512, 4096, true, false), bytes(512, 4096, false, false));
  // A byte a value, a bit for its being an outlier, two numbers a row.
  EXPECT_EQ(bytes(512, 4096, true, true) - bytes(0, 4096, true, true), 512 * (4096 + 512 + 8));
}

using CudaMatMulDeathTest = CudaTest;

TEST_F(CudaMatMulDeathTest, AbortsWhereScratchMemoryIsMissing) {
  Random random(12);
  Products products(Only(MatMulPath::kUnpack), false, false,
                    {RandomPart(WeightFormat::kNf4, 16, 64, random)}, 300, random);
  const Matrix x(300, 64, random);
  products.Lend(kMatMulZeroedBytes);
  EXPECT_DEATH(products.Run(x), "bytes of scratch memory");
}

// RMS error of a product against double, relative to its values' RMS.
double RelativeError(const Matrix& got, const std::vector<double>& want) {
  double errors = 0, values = 0;
  for (int64_t m = 0; m < got.rows(); ++m) {
    for (int64_t n = 0; n < got.cols(); ++n) {
      const double exact = want[static_cast<size_t>(m * got.cols() + n)];
      errors += (double{got.At(m, n)} - exact) * (double{got.At(m, n)} - exact);
      values += exact * exact;
    }
  }
  return std::sqrt(errors / values);
}

// Goal G8: at most a fifth of the error of dequantizing to bf16 and multiplying bf16 rows.
TEST_F(CudaMatMul, EveryTensorCorePathIsFiveTimesAsExactAsDequantizingToBf16) {
  Random random(7);
  const int64_t m = 8, n = 64, k = 2048;
  const HostPart part = RandomFourBit({n, k}, random, 0.02f);
  const Matrix x(m, k, random);
  const std::vector<float> w = part.Values();
  std::vector<double> want(static_cast<size_t>(m * n));
  Matrix in_bf16(m, n);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double exact = 0, rounded = 0;
      for (int64_t c = 0; c < k; ++c) {
        const float a = x.At(i, c), b = w[static_cast<size_t>(j * k + c)];
        exact += double{a} * double{b};
        rounded += double{Bf16ToF32(F32ToBf16(a))} * double{Bf16ToF32(F32ToBf16(b))};
      }
      want[static_cast<size_t>(i * n + j)] = exact;
      in_bf16.At(i, j) = static_cast<float>(rounded);
    }
  }
  const double of_bf16 = RelativeError(in_bf16, want);
  std::printf("bf16 %.3g", of_bf16);
  for (const MatMulPath path :
       {MatMulPath::kStream, MatMulPath::kStaged, MatMulPath::kHopper, MatMulPath::kUnpack}) {
    if (path == MatMulPath::kHopper && traits().compute_major != 9) continue;
    Products products(Only(path), false, false, {part}, m, random);
    Matrix got = products.Run(x)[0];
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) got.At(i, j) -= static_cast<float>(products.bias(0).At(j));
    }
    const double error = RelativeError(got, want);
    std::printf(", %s %.3g", Name(path), error);
    EXPECT_LE(error, 0.2 * of_bf16) << Name(path);
  }
  std::printf("\n");
}

}  // namespace
}  // namespace nibble::cuda
