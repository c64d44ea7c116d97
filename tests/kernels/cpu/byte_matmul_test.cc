// Products of the int8 mode: against their own definition exactly, against the reference by a
// derived bound, and against themselves bit by bit over ISA rows, threads and numbers of rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "kernels/four_bit.h"
#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Shape {
  int64_t m, n, k;
  int32_t group_size;
};
const Shape kShapes[] = {
    {1, 16, 64, 64},      {1, 1, 32, 32},     {3, 5, 96, 32},      {2, 17, 128, 128},
    {4, 130, 192, 64},    {5, 33, 256, 256},  {13, 48, 576, 64},   {12, 96, 512, 512},
    {25, 64, 1024, 32},   {1, 144, 4096, 64}, {2, 16, 4096, 4096}, {7, 176, 64, 64},
    {33, 40, 2048, 1024}, {49, 30, 1088, 64}, {100, 70, 640, 128}, {37, 16, 2048, 2048},
};

std::unique_ptr<Backend> Int8Cpu(const std::string& isa, int threads = 1) {
  return Cpu(isa, threads, Compute::kInt8);
}

FourBitMatrix Quantized(WeightFormat format, const std::vector<float>& values, const Shape& shape,
                        bool double_quant) {
  absl::StatusOr<FourBitMatrix> matrix = QuantizeFourBit(
      values, shape.n, shape.k,
      {.format = format, .group_size = shape.group_size, .double_quant = double_quant});
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return *std::move(matrix);
}

FourBitMatrix RandomMatrix(WeightFormat format, const Shape& shape, bool double_quant,
                           Random& random) {
  return Quantized(format, random.Normals(shape.n * shape.k, 0.1f), shape, double_quant);
}

int CodeAt(const FourBitMatrix& matrix, int64_t n, int64_t k) {
  const int64_t i = n * matrix.k + k;
  const uint8_t byte = matrix.codes[static_cast<size_t>(i / 2)];
  return i % 2 == 0 ? byte >> 4 : byte & 15;
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
Matrix Product(Backend& backend, const FourBitMatrix& matrix, const Matrix& x) {
  return Product(backend, PackedMatrix(backend, matrix).weight(), x);
}

// The definition at the head of lanes_bytes.inl, one number at a time.
struct Block {
  std::vector<int> q;
  float scale;
};
Block BlockOf(const Matrix& x, int64_t row, int64_t first, int64_t size) {
  Block block = {std::vector<int>(static_cast<size_t>(size)), 0};
  float stat = 0;
  for (int64_t k = first; k < first + size; ++k) {
    if (!std::isfinite(x.At(row, k))) return {block.q, kNan};
    stat = std::max(stat, std::abs(x.At(row, k)));
  }
  if (stat < 0x1p-100f) return block;
  const float factor = 127.0f / stat;
  for (size_t i = 0; i < block.q.size(); ++i) {
    const float scaled = x.At(row, first + static_cast<int64_t>(i)) * factor;
    block.q[i] = static_cast<int>(std::nearbyint(scaled));
  }
  block.scale = stat / 16129.0f;
  return block;
}

// M and the 16 codes.
struct Codes {
  std::array<int, 16> c = {};
  float largest = 0;
};
Codes CodesOf(const FourBitMatrix& matrix) {
  Codes codes;
  for (const float value : matrix.codebook) {
    if (!std::isfinite(value)) return {{}, kNan};
    codes.largest = std::max(codes.largest, std::abs(value));
  }
  for (size_t i = 0; i < 16 && codes.largest > 0; ++i) {
    const float ratio = matrix.codebook[i] / codes.largest;
    codes.c[i] = static_cast<int>(std::nearbyint(127.0f * ratio));
  }
  return codes;
}

Matrix ByDefinition(const FourBitMatrix& matrix, const Matrix& x) {
  const Codes codes = CodesOf(matrix);
  const int64_t block_size = matrix.group_size == 32 ? 32 : 64;
  const int64_t groups = matrix.k / matrix.group_size;
  Matrix out(x.rows(), matrix.n);
  for (int64_t row = 0; row < x.rows(); ++row) {
    for (int64_t first = 0; first < matrix.k; first += block_size) {
      const Block block = BlockOf(x, row, first, block_size);
      for (int64_t n = 0; n < matrix.n; ++n) {
        int t = 0;
        for (int64_t i = 0; i < block_size; ++i) {
          t += block.q[static_cast<size_t>(i)] *
               codes.c[static_cast<size_t>(CodeAt(matrix, n, first + i))];
        }
        const float scale = GroupScale(matrix, n * groups + first / matrix.group_size);
        out.At(row, n) = std::fma(static_cast<float>(t), block.scale * scale, out.At(row, n));
      }
    }
    for (int64_t n = 0; n < matrix.n; ++n) out.At(row, n) *= codes.largest;
  }
  return out;
}

void ExpectDefinitionEverywhere(const FourBitMatrix& matrix, const Matrix& x,
                                const std::string& what) {
  const Matrix want = ByDefinition(matrix, x);
  for (const auto& backend : EveryCpu(Compute::kInt8)) {
    ExpectSameBits(Product(*backend, matrix, x), want, absl::StrCat(what, ", ", NameOf(*backend)));
  }
}

class ByteMatMul : public testing::TestWithParam<std::tuple<Shape, WeightFormat, bool>> {};

TEST_P(ByteMatMul, IsItsDefinitionBitForBitOnEveryRowAndThreadCount) {
  const auto [shape, format, double_quant] = GetParam();
  Random random(7);
  const Matrix x(shape.m, shape.k, random);
  ExpectDefinitionEverywhere(RandomMatrix(format, shape, double_quant, random), x, "product");
}

// |x - q·stat/127| <= stat/254 and |code - c/127| <= 1/254, each and a few roundings more; what the
// two errors make of one product is at most e_x·|w| + e_w·|x|·scale + e_x·e_w·scale. Then a chain
// of K/32 or fewer fused additions, the same as in fp32 (Higham, §3.1).
TEST_P(ByteMatMul, MatchesTheReference) {
  const auto [shape, format, double_quant] = GetParam();
  Random random(9);
  const Matrix x(shape.m, shape.k, random);
  const FourBitMatrix matrix = RandomMatrix(format, shape, double_quant, random);
  std::vector<float> w(static_cast<size_t>(matrix.NumValues()));
  DequantizeFourBit(matrix, 0, w);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const int64_t block_size = shape.group_size == 32 ? 32 : 64;
  const auto bound = [&](int64_t r, int64_t c) {
    double sum = 0, products = 0;
    for (int64_t k = 0; k < shape.k; ++k) {
      double stat = 0;
      for (int64_t i = 0; i < block_size; ++i) {
        stat = std::max(stat, std::abs(double{x.At(r, k / block_size * block_size + i)}));
      }
      const double scale = GroupScale(matrix, (c * shape.k + k) / shape.group_size);
      const double weight = std::abs(double{w[static_cast<size_t>(c * shape.k + k)]});
      const double e_x = stat / 254, e_w = std::abs(scale) / 254;
      sum += e_x * weight + e_w * std::abs(x.At(r, k)) + e_x * e_w;
      products += std::abs(x.At(r, k)) * weight;
    }
    return sum * 1.0001 + products * static_cast<double>(shape.k + 8) * kUlp;
  };
  const std::unique_ptr<Backend> cpu = Int8Cpu("");
  ExpectWithin(Product(*cpu, matrix, x), Product(*reference, matrix, x), bound, cpu->isa());
}

INSTANTIATE_TEST_SUITE_P(Shapes, ByteMatMul,
                         testing::Combine(testing::ValuesIn(kShapes),
                                          testing::Values(WeightFormat::kNf4, WeightFormat::kFp4),
                                          testing::Bool()));

// Relative to double, over normal numbers with K = 2048; kernels/README.md tells them. Where errors
// of single products are independent they add up as roots do, so that a mode's RMS error is about
// that of one product: 2^-24 · √3 · a few for fp32's chains; √2 · 2^-9/√3 for two roundings to
// bf16; for int8 stat/254/√3 of x (stat being about 2.7 of its standard deviations), and as much
// again for the codebook, of which NF4 uses steps of 0.08 to 0.3 anyway.
TEST(NumericModes, HaveTheRmsErrorThatTheReadmeTells) {
  Random random(53);
  const Shape shape = {16, 128, 2048, 64};
  const Matrix x(shape.m, shape.k, random);
  const FourBitMatrix matrix = RandomMatrix(WeightFormat::kNf4, shape, true, random);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const Matrix want = Product(*reference, matrix, x);
  const auto rms_error = [&](Compute compute) {
    const Matrix got = Product(*Cpu("", 1, compute), matrix, x);
    double error = 0, sum = 0;
    for (int64_t r = 0; r < shape.m; ++r) {
      for (int64_t c = 0; c < shape.n; ++c) {
        error += std::pow(double{got.At(r, c)} - double{want.At(r, c)}, 2);
        sum += std::pow(double{want.At(r, c)}, 2);
      }
    }
    std::printf("%s: RMS error %.2e\n", Name(compute), std::sqrt(error / sum));
    return std::sqrt(error / sum);
  };
  EXPECT_LT(rms_error(Compute::kFp32), 5e-7);
  EXPECT_LT(rms_error(Compute::kBf16), 3e-3);
  EXPECT_LT(rms_error(Compute::kInt8), 1.2e-2);
}

// Every product of bytes at its extreme, where sums of 16 bits would not hold two of them.
TEST(ByteMatMulExtremes, AreExactSums) {
  const Shape shape = {40, 32, 128, 64};
  std::vector<float> w(static_cast<size_t>(shape.n * shape.k));
  for (size_t i = 0; i < w.size(); ++i)
    w[i] = i / 128 % 3 == 0 ? 1.0f : i / 128 % 3 == 1 ? -1.0f : i % 2 == 0 ? 1.0f : -1.0f;
  const FourBitMatrix matrix = Quantized(WeightFormat::kNf4, w, shape, false);
  Matrix x(shape.m, shape.k);
  for (int64_t r = 0; r < shape.m; ++r) {
    for (int64_t k = 0; k < shape.k; ++k) {
      x.At(r, k) = r % 3 == 0 ? 127 : r % 3 == 1 ? -127 : k % 2 == 0 ? 127 : -127;
    }
  }
  ExpectDefinitionEverywhere(matrix, x, "extremes");
  const std::unique_ptr<Backend> cpu = Int8Cpu("");
  const Matrix got = Product(*cpu, matrix, x);
  EXPECT_FLOAT_EQ(got.At(0, 0), 127 * 128);
  EXPECT_FLOAT_EQ(got.At(1, 0), -127 * 128);
  EXPECT_FLOAT_EQ(got.At(2, 2), 127 * 128);
  EXPECT_FLOAT_EQ(got.At(2, 0), 0);
}

TEST(ByteMatMulInputs, ZeroBlocksAndTinyOnesAreZeros) {
  Random random(19);
  const Shape shape = {35, 20, 256, 64};
  const FourBitMatrix matrix = RandomMatrix(WeightFormat::kNf4, shape, true, random);
  Matrix x(shape.m, shape.k, random);
  for (int64_t k = 0; k < 64; ++k) {
    x.At(0, k) = 0;
    x.At(1, k) = 0x1p-140f * random.Normal();  // subnormal
    x.At(2, k) = -0.0f;
    x.At(3, k) = 0x1p-101f;
  }
  for (int64_t k = 0; k < shape.k; ++k) x.At(4, k) = 0x1p-130f;
  ExpectDefinitionEverywhere(matrix, x, "zeros");
  for (int64_t n = 0; n < shape.n; ++n) {
    EXPECT_EQ(Product(*Int8Cpu(""), matrix, x).At(4, n), 0);
  }
}

TEST(ByteMatMulInputs, TheLargestNumbersDoNotOverflow) {
  Random random(21);
  const Shape shape = {2, 16, 128, 64};
  Matrix x(shape.m, shape.k, random);
  x.At(0, 7) = std::numeric_limits<float>::max();
  x.At(1, 100) = -0x1p-99f;
  ExpectDefinitionEverywhere(RandomMatrix(WeightFormat::kNf4, shape, false, random), x, "large");
}

TEST(ByteMatMulInputs, NanAndInfinityStayInTheirRow) {
  Random random(23);
  for (const int64_t m : {5, 40}) {
    const Shape shape = {m, 24, 192, 64};
    const FourBitMatrix matrix = RandomMatrix(WeightFormat::kNf4, shape, true, random);
    const Matrix clean(shape.m, shape.k, random);
    Matrix x = clean;
    x.At(1, 70) = kNan;
    x.At(3, 0) = kInf;
    x.At(4, 191) = -kInf;
    for (const auto& backend : EveryCpu(Compute::kInt8)) {
      const Matrix got = Product(*backend, matrix, x), want = Product(*backend, matrix, clean);
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t n = 0; n < shape.n; ++n) {
          if (r == 1 || r == 3 || r == 4) {
            EXPECT_TRUE(std::isnan(got.At(r, n))) << NameOf(*backend) << " row " << r;
          } else {
            EXPECT_EQ(got.At(r, n), want.At(r, n)) << NameOf(*backend) << " row " << r;
          }
        }
      }
    }
  }
}

TEST(ByteMatMulTables, OfItsOwnAreRelativeToTheirLargest) {
  Random random(29);
  const Shape shape = {34, 18, 128, 64};
  const Matrix x(shape.m, shape.k, random);
  const FourBitMatrix plain = RandomMatrix(WeightFormat::kNf4, shape, false, random);
  const auto with = [&](auto change) {
    FourBitMatrix matrix = plain;
    for (float& code : matrix.codebook) code = change(code);
    return matrix;
  };
  ExpectDefinitionEverywhere(with([](float c) { return 3.5f * c + 0.25f; }), x, "larger");
  ExpectDefinitionEverywhere(with([](float c) { return 1e-3f * c; }), x, "smaller");
  ExpectDefinitionEverywhere(with([](float c) { return 0x1p-140f * c; }), x, "subnormal");
  ExpectDefinitionEverywhere(with([](float c) { return 3e38f * c; }), x, "huge");
  ExpectDefinitionEverywhere(with([](float) { return 0.0f; }), x, "zero");
  for (const float silly : {kNan, kInf}) {
    FourBitMatrix matrix = plain;
    matrix.codebook[3] = silly;
    for (const auto& backend : EveryCpu(Compute::kInt8)) {
      EXPECT_TRUE(std::isnan(Product(*backend, matrix, x).At(2, 5))) << NameOf(*backend);
    }
  }
}

TEST(ByteMatMulRows, ARowAloneEqualsTheSameRowAmong97) {
  Random random(31);
  const Shape shape = {97, 144, 1216, 64};
  const Matrix x(shape.m, shape.k, random);
  const FourBitMatrix matrix = RandomMatrix(WeightFormat::kNf4, shape, true, random);
  for (const IsaTable* isa : SupportedIsas()) {
    const std::unique_ptr<Backend> cpu = Int8Cpu(isa->name, 2);
    const PackedMatrix packed(*cpu, matrix);
    const Matrix crowd = Product(*cpu, packed.weight(), x);
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 24, 31, 32, 33, 64}) {
      Matrix some(rows, shape.k), want(rows, shape.n);
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(x.View().Row(r + 20), shape.k, some.View().Row(r));
        std::copy_n(crowd.View().Row(r + 20), shape.n, want.View().Row(r));
      }
      ExpectSameBits(Product(*cpu, packed.weight(), some), want,
                     absl::StrCat(isa->name, " M=", rows));
    }
  }
}

TEST(ByteMatMulParts, AddBiasAndResidual) {
  Random random(37);
  for (const int64_t m : {5, 41}) {
    const Shape shape = {m, 40, 128, 64};
    const Matrix x(shape.m, shape.k, random), residual(shape.m, shape.n, random);
    const std::vector<float> bias = random.Normals(shape.n);
    const FourBitMatrix matrix = RandomMatrix(WeightFormat::kNf4, shape, true, random);
    const std::unique_ptr<Backend> cpu = Int8Cpu("");
    const PackedMatrix packed(*cpu, matrix);
    const Matrix plain = Product(*cpu, packed.weight(), x);
    const Matrix all =
        Product(*cpu, packed.weight(), x, {bias.data(), DType::kF32, shape.n}, &residual);
    for (int64_t r = 0; r < shape.m; ++r) {
      for (int64_t c = 0; c < shape.n; ++c) {
        EXPECT_EQ(all.At(r, c),
                  residual.At(r, c) + (plain.At(r, c) + bias[static_cast<size_t>(c)]));
      }
    }
  }
}

// What the int8 mode does not multiply in bytes: groups that straddle rows and fp16 weights in
// fp32, bf16 weights as the bf16 mode does, INT8 weights as ever.
TEST(ByteMatMulParts, OfOneCallEachGoTheirWay) {
  Random random(43);
  const Shape shape = {6, 48, 160, 64};
  const Matrix x(shape.m, shape.k, random);
  const std::vector<float> w = random.Normals(shape.n * shape.k, 0.1f);
  const std::unique_ptr<Backend> cpu = Int8Cpu("", 2), fp32 = Cpu("", 1),
                                 bf16 = Cpu("", 1, Compute::kBf16);
  const PackedMatrix straddling(*cpu, Quantized(WeightFormat::kNf4, w, shape, true));
  const FourBitMatrix short_groups =
      Quantized(WeightFormat::kNf4, w, {shape.m, shape.n, shape.k, 32}, true);
  const PackedMatrix bytes(*cpu, short_groups);
  const PackedMatrix f16(*cpu, WeightFormat::kF16, shape.n, shape.k,
                         ToHalves(WeightFormat::kF16, w));
  const PackedMatrix b16(*cpu, WeightFormat::kBf16, shape.n, shape.k,
                         ToHalves(WeightFormat::kBf16, w));
  Int8Matrix codes = MakeInt8Matrix(shape.n, shape.k);
  ASSERT_TRUE(QuantizeInt8(0, w, &codes).ok());
  const PackedMatrix int8(*cpu, codes, 1.5f);
  const PackedMatrix* const packed[] = {&straddling, &bytes, &f16, &b16, &int8};
  std::vector<Matrix> together(5, Matrix(shape.m, shape.n));
  std::vector<MatMulPart> parts;
  for (size_t i = 0; i < 5; ++i) {
    parts.push_back({&packed[i]->weight(), {}, together[i].View(), false});
  }
  {
    const LentScratch scratch(*cpu, {.max_rows = shape.m, .max_k = shape.k});
    cpu->MatMul(x.View(), parts);
  }
  ExpectSameBits(together[0], Product(*fp32, straddling.weight(), x), "straddling");
  ExpectSameBits(together[1], ByDefinition(short_groups, x), "groups of 32");
  ExpectSameBits(together[2], Product(*fp32, f16.weight(), x), "fp16");
  ExpectSameBits(together[3], Product(*bf16, b16.weight(), x), "bf16");
  ExpectSameBits(together[4], Product(*fp32, int8.weight(), x), "int8");
}

TEST(ByteMatMulParts, BlocksOf32And64LiveInOneCall) {
  Random random(47);
  const Shape shape = {34, 48, 128, 64};
  const Matrix x(shape.m, shape.k, random);
  const FourBitMatrix of_64 = RandomMatrix(WeightFormat::kNf4, shape, true, random);
  const FourBitMatrix of_32 =
      RandomMatrix(WeightFormat::kFp4, {shape.m, shape.n, shape.k, 32}, false, random);
  for (const auto& cpu : EveryCpu(Compute::kInt8)) {
    const PackedMatrix first(*cpu, of_64), second(*cpu, of_32);
    Matrix a(shape.m, shape.n), b(shape.m, shape.n);
    const MatMulPart parts[] = {{&first.weight(), {}, a.View(), false},
                                {&second.weight(), {}, b.View(), false}};
    const LentScratch scratch(*cpu, {.max_rows = shape.m, .max_k = shape.k});
    cpu->MatMul(x.View(), parts);
    ExpectSameBits(a, ByDefinition(of_64, x), "blocks of 64");
    ExpectSameBits(b, ByDefinition(of_32, x), "blocks of 32");
  }
}

}  // namespace
}  // namespace nibble
