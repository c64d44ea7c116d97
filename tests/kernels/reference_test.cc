// The oracle against numbers worked out by hand: what every other backend is compared with must
// itself be beyond doubt.
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/half.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A small matrix of activations that owns its numbers.
struct Matrix {
  Matrix(int64_t num_rows, int64_t num_cols, std::vector<float> v = {})
      : rows(num_rows), cols(num_cols), values(std::move(v)) {
    values.resize(static_cast<size_t>(rows * cols), 0.0f);
  }
  Activations View() { return {values.data(), rows, cols, cols}; }

  int64_t rows, cols;
  std::vector<float> values;
};

VectorView ViewOf(const std::vector<float>& values) {
  return {values.data(), DType::kF32, static_cast<int64_t>(values.size())};
}

class ReferenceTest : public ::testing::Test {
 protected:
  ReferenceTest() : backend_(*MakeReferenceBackend()) {}

  // A matrix in device memory with the bytes the backend asks for, no more.
  struct Packed {
    Weight weight;
    std::vector<uint8_t> codes, scales, nested, tables;
  };

  std::unique_ptr<Packed> Reserve(const WeightSpec& spec) {
    const PackedSize size = backend_->PackedBytes(spec);
    auto packed = std::make_unique<Packed>();
    packed->codes.resize(static_cast<size_t>(size.codes));
    packed->scales.resize(static_cast<size_t>(size.scales));
    packed->nested.resize(static_cast<size_t>(size.nested));
    packed->tables.resize(static_cast<size_t>(size.tables));
    packed->weight = {spec, packed->codes.data(), packed->scales.data(), packed->nested.data(),
                      packed->tables.data()};
    return packed;
  }

  std::unique_ptr<Packed> Pack16(WeightFormat format, int64_t n, int64_t k,
                                 const std::vector<float>& values) {
    auto packed = Reserve({.format = format, .n = n, .k = k});
    const DType dtype = format == WeightFormat::kBf16 ? DType::kBF16 : DType::kF16;
    std::vector<uint16_t> halves(values.size());
    for (size_t i = 0; i < values.size(); ++i) halves[i] = F32ToHalf(dtype, values[i]);
    EXPECT_TRUE(backend_->Pack16(0, n, halves.data(), &packed->weight).ok());
    return packed;
  }

  std::unique_ptr<Backend> backend_;
};

// --- memory and weights ---

TEST_F(ReferenceTest, AllocatesZeroedPages) {
  absl::StatusOr<Buffer> buffer = backend_->Allocate(5000);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->bytes(), 5000);
  EXPECT_EQ(std::bit_cast<uintptr_t>(buffer->data()) % 4096, 0u);
  for (int64_t i = 0; i < 5000; ++i) ASSERT_EQ(buffer->data()[i], 0) << i;
}

TEST_F(ReferenceTest, RefusesMoreMemoryThanThereIs) {
  for (const int64_t bytes : {INT64_MAX, INT64_MAX / 2}) {
    const absl::Status status = backend_->Allocate(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(std::to_string(bytes)));
  }
}

TEST_F(ReferenceTest, PacksIntoExactlyTheBytesOfTheFormat) {
  const auto bytes = [&](const WeightSpec& spec) {
    const PackedSize size = backend_->PackedBytes(spec);
    return std::array<int64_t, 3>{size.codes, size.scales, size.nested};
  };
  EXPECT_THAT(bytes({WeightFormat::kNf4, 48, 576, 64, true}), ElementsAre(13824, 432, 2 * 4 + 4));
  EXPECT_THAT(bytes({WeightFormat::kNf4, 48, 576, 64, false}), ElementsAre(13824, 1728, 0));
  EXPECT_THAT(bytes({WeightFormat::kNf4, 9, 65, 64, true}), ElementsAre(293, 10, 8));
  EXPECT_THAT(bytes({WeightFormat::kBf16, 9, 65, 64, true}), ElementsAre(1170, 0, 0));
}

TEST_F(ReferenceTest, MultipliesByTheDequantizedMatrix) {
  constexpr int64_t kN = 11, kK = 67, kM = 3;  // groups straddle rows
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(kN * kK);
  for (float& value : values) value = normal(random);
  for (const bool double_quant : {false, true}) {
    const FourBitMatrix matrix =
        *QuantizeFourBit(values, kN, kK, {.group_size = 32, .double_quant = double_quant});
    auto packed = Reserve({WeightFormat::kNf4, kN, kK, 32, double_quant});
    ASSERT_TRUE(backend_->PackFourBit(matrix, &packed->weight).ok());
    std::vector<float> weights(values.size());
    DequantizeFourBit(matrix, 0, weights);

    Matrix x(kM, kK), out(kM, kN);
    for (float& value : x.values) value = normal(random);
    const MatMulPart part = {.weight = &packed->weight, .bias = {}, .out = out.View()};
    backend_->MatMul(x.View(), {&part, 1});
    for (size_t m = 0; m < kM; ++m) {
      for (size_t n = 0; n < kN; ++n) {
        double sum = 0;
        for (size_t k = 0; k < kK; ++k) {
          sum +=
              static_cast<double>(x.values[m * kK + k]) * static_cast<double>(weights[n * kK + k]);
        }
        EXPECT_EQ(out.values[m * kN + n], static_cast<float>(sum)) << m << ", " << n;
      }
    }
  }
}

TEST_F(ReferenceTest, RefusesMatricesThatAreNotTheWeights) {
  const std::vector<float> ones(128, 1.0f);
  auto packed = Reserve({WeightFormat::kNf4, 1, 128, 64, true});
  const auto code = [&](const FourBitMatrix& matrix) {
    return backend_->PackFourBit(matrix, &packed->weight).code();
  };
  constexpr auto kRefused = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code(*QuantizeFourBit(ones, 1, 128, {.group_size = 64, .double_quant = true})),
            absl::StatusCode::kOk);
  EXPECT_EQ(code(*QuantizeFourBit(ones, 2, 64, {.group_size = 64, .double_quant = true})),
            kRefused);
  EXPECT_EQ(code(*QuantizeFourBit(ones, 1, 128, {.group_size = 128, .double_quant = true})),
            kRefused);
  EXPECT_EQ(code(*QuantizeFourBit(ones, 1, 128, {.group_size = 64, .double_quant = false})),
            kRefused);
  FourBitMatrix other_map =
      *QuantizeFourBit(ones, 1, 128, {.group_size = 64, .double_quant = true});
  other_map.nested_map[3] = 0.5f;
  EXPECT_EQ(code(other_map), kRefused);

  auto halves = Reserve({.format = WeightFormat::kF16, .n = 2, .k = 64});
  const std::vector<uint16_t> rows(192);
  EXPECT_EQ(backend_->Pack16(0, 3, rows.data(), &halves->weight).code(), kRefused);
  EXPECT_EQ(backend_->Pack16(-1, 1, rows.data(), &halves->weight).code(), kRefused);
  EXPECT_EQ(backend_->Pack16(2, 1, rows.data(), &halves->weight).code(), kRefused);
  EXPECT_EQ(backend_->Pack16(0, 1, rows.data(), &packed->weight).code(), kRefused);
}

TEST_F(ReferenceTest, MultipliesByTablesOfTheMatrixsOwn) {
  FourBitMatrix matrix = *QuantizeFourBit(std::vector<float>{1, -1}, 1, 2,
                                          {WeightFormat::kFp4, 32, /*double_quant=*/false});
  ASSERT_EQ(matrix.codes[0], 0x3b);  // 1 and -1
  matrix.codebook[0x3] = 0.5f;
  matrix.codebook[0xb] = 0.25f;
  Matrix x(1, 2, {3, 4}), out(1, 1);
  EXPECT_EQ(
      backend_->PackFourBit(matrix, &Reserve({WeightFormat::kFp4, 1, 2, 32, false})->weight).code(),
      absl::StatusCode::kInvalidArgument);
  const auto own = Reserve({WeightFormat::kFp4, 1, 2, 32, false, /*own_tables=*/true});
  ASSERT_TRUE(backend_->PackFourBit(matrix, &own->weight).ok());
  const MatMulPart part = {&own->weight, {}, out.View(), false};
  backend_->MatMul(x.View(), {&part, 1});
  EXPECT_THAT(out.values, ElementsAre(2.5f));
}

TEST_F(ReferenceTest, MultipliesInt8WithOutliersApart) {
  // Rows [1, 0, -1, 0.5] · 127 and zeros; absmax 2: w = 2, 0, -2, 1 (64/127 of 2 for the last).
  const Int8Matrix matrix = {2, 4, {127, 0, -127, 64, 0, 0, 0, 0}, {2, 0}};
  const auto packed = Reserve({.format = WeightFormat::kInt8, .n = 2, .k = 4});
  EXPECT_EQ(backend_->PackedBytes(packed->weight.spec).Total(), 8 + 8);
  ASSERT_TRUE(backend_->PackInt8(matrix, &packed->weight).ok());
  // 8 is an outlier; of the others 3 is the largest and 1 has code 42: 127 · 1/3 = 42.3.
  Matrix x(1, 4, {1, -2, 8, 3}), out(1, 2, {10, 20});
  const std::vector<float> bias = {0.5f, 0.25f};
  const MatMulPart part = {&packed->weight, ViewOf(bias), out.View(), true};
  backend_->MatMul(x.View(), {&part, 1});
  const double integers = (42.0 * 127 + 127.0 * 64) * 3 * 2 / (127 * 127);
  EXPECT_FLOAT_EQ(out.values[0], static_cast<float>(10.5 + integers - 8.0 * 2));
  EXPECT_FLOAT_EQ(out.values[1], 20.25f);
}

TEST_F(ReferenceTest, RefusesInt8MatricesThatAreNotTheWeights) {
  Int8Matrix matrix = MakeInt8Matrix(2, 4);
  const auto wide = Reserve({.format = WeightFormat::kInt8, .n = 2, .k = 5});
  EXPECT_EQ(backend_->PackInt8(matrix, &wide->weight).code(), absl::StatusCode::kInvalidArgument);
  const auto nf4 = Reserve({.format = WeightFormat::kNf4, .n = 2, .k = 4});
  EXPECT_EQ(backend_->PackInt8(matrix, &nf4->weight).code(), absl::StatusCode::kInvalidArgument);
  matrix.absmax.pop_back();
  const auto same = Reserve({.format = WeightFormat::kInt8, .n = 2, .k = 4});
  EXPECT_EQ(backend_->PackInt8(matrix, &same->weight).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ReferenceTest, AddsBiasAndAccumulatesPerPart) {
  auto a = Pack16(WeightFormat::kF16, 2, 3, {1, 2, 3, 4, 5, 6});
  auto b = Pack16(WeightFormat::kBf16, 1, 3, {-1, 0, 1});
  const std::vector<float> bias = {0.5f, -0.5f};
  Matrix x(2, 3, {1, 1, 1, 1, 0, -1}), out_a(2, 2), out_b(2, 1, {100, 200});
  const std::vector<MatMulPart> parts = {
      {.weight = &a->weight, .bias = ViewOf(bias), .out = out_a.View()},
      {.weight = &b->weight, .bias = {}, .out = out_b.View(), .accumulate = true}};
  backend_->MatMul(x.View(), parts);
  EXPECT_THAT(out_a.values, ElementsAre(6.5f, 14.5f, -1.5f, -2.5f));
  EXPECT_THAT(out_b.values, ElementsAre(100.0f, 198.0f));
}

TEST_F(ReferenceTest, LooksUpRowsPackedInSlices) {
  auto table = Reserve({.format = WeightFormat::kBf16, .n = 3, .k = 2});
  const std::vector<uint16_t> first = {F32ToBf16(1), F32ToBf16(2)};
  const std::vector<uint16_t> rest = {F32ToBf16(3), F32ToBf16(4), F32ToBf16(5), F32ToBf16(6)};
  ASSERT_TRUE(backend_->Pack16(1, 2, rest.data(), &table->weight).ok());
  ASSERT_TRUE(backend_->Pack16(0, 1, first.data(), &table->weight).ok());
  Matrix out(3, 2);
  const std::vector<int32_t> ids = {2, 0, 2};
  backend_->Embedding(table->weight, ids, false, out.View());
  EXPECT_THAT(out.values, ElementsAre(5, 6, 1, 2, 5, 6));
  backend_->Embedding(table->weight, std::vector<int32_t>{1, 1, 1}, true, out.View());
  EXPECT_THAT(out.values, ElementsAre(8, 10, 4, 6, 8, 10));
}

TEST_F(ReferenceTest, LooksUpRowsOfQuantizedTables) {
  // Codes 15, 0 and 7 of one group whose scale is 8.
  std::vector<float> values(2 * 16, 0.0f);
  values[0] = 8, values[1] = -8, values[16] = -8;
  const auto matrix = QuantizeFourBit(values, 2, 16, {.group_size = 32, .double_quant = false});
  const auto nf4 = Reserve(
      {.format = WeightFormat::kNf4, .n = 2, .k = 16, .group_size = 32, .double_quant = false});
  ASSERT_TRUE(backend_->PackFourBit(*matrix, &nf4->weight).ok());
  Matrix out(1, 16, {1, 1, 1});
  backend_->Embedding(nf4->weight, std::vector<int32_t>{0}, true, out.View());
  EXPECT_THAT(std::span(out.values).first(4), ElementsAre(9, -7, 1, 0));

  Int8Matrix bytes = MakeInt8Matrix(2, 2);
  bytes.codes = {127, 0, -64, 127};
  bytes.absmax = {5, 127};
  const auto int8 = Reserve({.format = WeightFormat::kInt8, .n = 2, .k = 2});
  ASSERT_TRUE(backend_->PackInt8(bytes, &int8->weight).ok());
  Matrix pair(2, 2);
  backend_->Embedding(int8->weight, std::vector<int32_t>{1, 0}, false, pair.View());
  EXPECT_THAT(pair.values, ElementsAre(FloatEq(-64), FloatEq(127), FloatEq(5), 0));
}

// --- rows ---

TEST_F(ReferenceTest, RmsNormDividesByTheRootMeanSquareInPlace) {
  Matrix x(2, 2, {3, 4, 0, 0});
  const std::vector<float> weight = {2, 1};
  backend_->RmsNorm(x.View(), ViewOf(weight), 0.5f, x.View());
  const float divisor = std::sqrt(13.0f);  // (9 + 16) / 2 + 0.5
  EXPECT_THAT(x.values, ElementsAre(FloatEq(6 / divisor), FloatEq(4 / divisor), 0, 0));
}

TEST_F(ReferenceTest, LayerNormAddsTheResidualFirst) {
  const std::vector<float> weight = {1, 10}, bias = {0.25f, -1};
  for (const bool with_residual : {false, true}) {
    Matrix x(1, 2, {1, 3}), residual(1, 2, {4, 0});
    const float half_gap = with_residual ? -1.0f : 1.0f;  // {5, 3} or {1, 3} about its mean
    backend_->LayerNorm(x.View(), with_residual ? residual.View() : Activations{}, ViewOf(weight),
                        ViewOf(bias), 0.25f, x.View());
    const float normal = half_gap / std::sqrt(1.25f);
    EXPECT_THAT(x.values, ElementsAre(FloatEq(0.25f - normal), FloatEq(-1 + 10 * normal)));
  }
}

TEST_F(ReferenceTest, SiluMulAndGelu) {
  Matrix gate(1, 3, {1, 0, -2}), up(1, 3, {3, 5, 0.5f});
  backend_->SiluMul(gate.View(), up.View(), gate.View());
  EXPECT_THAT(gate.values, ElementsAre(FloatEq(2.1931757358900147f), 0, FloatEq(-0.11920292202f)));

  Matrix exact(1, 3, {1, 0, -2}), tanh_form(1, 3, {1, 0, -2});
  backend_->Gelu(exact.View(), false);
  backend_->Gelu(tanh_form.View(), true);
  EXPECT_THAT(exact.values, ElementsAre(FloatEq(0.8413447460685429f), 0, FloatEq(-0.0455002639f)));
  EXPECT_THAT(tanh_form.values,
              ElementsAre(FloatEq(0.8411919906082768f), 0, FloatEq(-0.04540230591f)));
}

// Constants by 110-digit arithmetic (tests/oracle/gelu_goldens.py).
TEST_F(ReferenceTest, GeluKeepsItsPrecisionFarBelowZero) {
  Matrix exact(1, 3, {-6, -8, -12}), tanh_form(1, 3, {-4, -5, -6});
  backend_->Gelu(exact.View(), false);
  backend_->Gelu(tanh_form.View(), true);
  EXPECT_THAT(exact.values, ElementsAre(FloatEq(-5.919525870e-09f), FloatEq(-4.976768459e-15f),
                                        FloatEq(-2.131778534e-32f)));
  EXPECT_THAT(tanh_form.values, ElementsAre(FloatEq(-7.024594819e-05f), FloatEq(-2.291796197e-07f),
                                            FloatEq(-8.439646701e-11f)));
}

TEST_F(ReferenceTest, GathersRowsInTheOrderAsked) {
  Matrix x(3, 2, {1, 2, 3, 4, 5, 6}), out(2, 2);
  backend_->GatherRows(x.View(), std::vector<int32_t>{2, 0}, out.View());
  EXPECT_THAT(out.values, ElementsAre(5, 6, 1, 2));
}

TEST_F(ReferenceTest, PoolsEachSequenceThenCutsThenNormalizes) {
  Matrix x(4, 3, {3, 4, 100, 5, 6, 7, 7, 8, 0, 0, 0, 9});
  const std::vector<SequenceRows> sequences = {{.first_row = 0, .num_rows = 3},
                                               {.first_row = 3, .num_rows = 1}};
  Matrix mean(2, 3), cls(2, 2), last(2, 3);
  backend_->Pool(x.View(), sequences, Pooling::kMean, false, mean.View());
  EXPECT_THAT(mean.values, ElementsAre(5, 6, FloatEq(107.0f / 3), 0, 0, 9));
  backend_->Pool(x.View(), sequences, Pooling::kCls, true, cls.View());
  EXPECT_THAT(cls.values, ElementsAre(0.6f, 0.8f, 0, 0)) << "a zero vector stays zero";
  backend_->Pool(x.View(), sequences, Pooling::kLast, false, last.View());
  EXPECT_THAT(last.values, ElementsAre(7, 8, 0, 0, 0, 9));
}

// --- attention ---

// A cache of NaN, so that any slot read before it is written shows.
struct Cache {
  Cache(DType dtype, int64_t layers, int64_t pages, int64_t kv_heads, int64_t head_dim) {
    view = {nullptr, dtype, layers, pages, kv_heads, head_dim};
    bytes.resize(static_cast<size_t>(view.Bytes()), 0xff);
    view.data = bytes.data();
  }
  KvCache view;
  std::vector<uint8_t> bytes;
};

float ReadF16(const KvCache& cache, int64_t i) {
  return F16ToF32(static_cast<const uint16_t*>(cache.data)[i]);
}

TEST_F(ReferenceTest, RotatesHalvesAndStoresAtTheSlotOfThePosition) {
  constexpr int64_t kHeadDim = 4;
  Cache cache(DType::kF16, 2, 3, 1, kHeadDim);
  Matrix q(1, 8, {1, 2, 3, 4, 5, 6, 7, 8}), k(1, 4, {1, 0, 0, 1}), v(1, 4, {1.0004f, 2, 3, 4});
  const std::vector<float> inv_freq = {1.0f, 0.1f};
  const std::vector<int32_t> pages = {2, 1};
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = 1, .start = 17, .pages = pages.data()}};
  backend_->RopeAndStore(q.View(), k.View(), v.View(), inv_freq, sequences, cache.view, 1);

  const double c0 = std::cos(17.0), s0 = std::sin(17.0);
  const double c1 = std::cos(static_cast<double>(17 * 0.1f));
  const double s1 = std::sin(static_cast<double>(17 * 0.1f));
  for (const size_t head : {size_t{0}, size_t{4}}) {
    const auto base = static_cast<double>(head);
    EXPECT_FLOAT_EQ(q.values[head], static_cast<float>((base + 1) * c0 - (base + 3) * s0));
    EXPECT_FLOAT_EQ(q.values[head + 1], static_cast<float>((base + 2) * c1 - (base + 4) * s1));
    EXPECT_FLOAT_EQ(q.values[head + 2], static_cast<float>((base + 3) * c0 + (base + 1) * s0));
    EXPECT_FLOAT_EQ(q.values[head + 3], static_cast<float>((base + 4) * c1 + (base + 2) * s1));
  }
  // Layer 1, page 1 (of 3), slot 1: K[d][16], then V[16][d].
  const int64_t page = (1 * 3 + 1) * 2 * kHeadDim * kPageSlots;
  for (int64_t d = 0; d < kHeadDim; ++d) {
    const float key = F16ToF32(F32ToF16(k.values[static_cast<size_t>(d)]));
    const float value = F16ToF32(F32ToF16(v.values[static_cast<size_t>(d)]));
    EXPECT_EQ(ReadF16(cache.view, page + d * kPageSlots + 1), key) << d;
    EXPECT_EQ(ReadF16(cache.view, page + kHeadDim * kPageSlots + kHeadDim + d), value) << d;
  }
  int written = 0;
  for (int64_t i = 0; i < cache.view.Bytes() / 2; ++i) {
    if (!std::isnan(ReadF16(cache.view, i))) ++written;
  }
  EXPECT_EQ(written, 2 * kHeadDim) << "nothing else is touched";
}

TEST_F(ReferenceTest, RoundsKeysAndValuesToNearestEvenInTheCachesType) {
  for (const auto& [dtype, value, want] :
       {std::tuple{DType::kF16, 1.0f + 0x1p-11f, 1.0f},
        std::tuple{DType::kF16, 1.0f + 0x1.8p-10f, 1.0f + 0x1p-9f},
        std::tuple{DType::kBF16, 1.0f + 0x1p-8f, 1.0f},
        std::tuple{DType::kF32, 1.0f + 0x1p-11f, 1.0f + 0x1p-11f}}) {
    Cache cache(dtype, 1, 1, 1, 2);
    Matrix q(1, 2), k(1, 2), v(1, 2, {value, 0}), out(1, 2);
    const int32_t page = 0;
    const std::vector<SequenceRows> sequences = {{.num_rows = 1, .pages = &page}};
    backend_->RopeAndStore(q.View(), k.View(), v.View(), std::vector<float>{1}, sequences,
                           cache.view, 0);
    backend_->PagedAttention(q.View(), sequences, cache.view, 0, 1, out.View());
    EXPECT_EQ(out.values[0], want) << Name(dtype);
  }
}

// Values tell where they came from: V = {sequence, position, head, 1}; with q = 0 every position
// weighs the same, so the output is the mean of what was attended to.
TEST_F(ReferenceTest, AttendsToItsOwnPastThroughThePageTableOnly) {
  constexpr int64_t kHeadDim = 4, kKvHeads = 2, kHeads = 4, kRows = 20;
  Cache cache(DType::kF32, 1, 6, kKvHeads, kHeadDim);
  const std::vector<int32_t> pages_a = {4, 1}, pages_b = {3};
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = 18, .start = 0, .pages = pages_a.data()},
      {.first_row = 18, .num_rows = 2, .start = 0, .pages = pages_b.data()}};
  Matrix q(kRows, kHeads * kHeadDim), k(kRows, kKvHeads * kHeadDim);
  Matrix v(kRows, kKvHeads * kHeadDim), out(kRows, kHeads * kHeadDim);
  for (int64_t row = 0; row < kRows; ++row) {
    const auto sequence = static_cast<float>(row >= 18);
    const auto position = static_cast<float>(row >= 18 ? row - 18 : row);
    for (int64_t head = 0; head < kKvHeads; ++head) {
      const std::array<float, 4> value = {sequence, position, static_cast<float>(head), 1};
      std::memcpy(v.View().Row(row) + head * kHeadDim, value.data(), sizeof(value));
    }
  }
  backend_->RopeAndStore(q.View(), k.View(), v.View(), std::vector<float>{1, 1}, sequences,
                         cache.view, 0);
  backend_->PagedAttention(q.View(), sequences, cache.view, 0, 1, out.View());
  for (int64_t row = 0; row < kRows; ++row) {
    const auto sequence = static_cast<float>(row >= 18);
    const auto position = static_cast<float>(row >= 18 ? row - 18 : row);
    for (int64_t head = 0; head < kHeads; ++head) {
      const float* got = out.View().Row(row) + head * kHeadDim;
      const int64_t kv_head = head / (kHeads / kKvHeads);
      EXPECT_THAT(std::vector<float>(got, got + 4),
                  ElementsAre(sequence, FloatEq(position / 2), static_cast<float>(kv_head), 1))
          << row << ", " << head;
    }
  }
}

TEST_F(ReferenceTest, WeighsPositionsBySoftmaxOfTheScaledScores) {
  Cache cache(DType::kF32, 1, 1, 1, 2);
  Matrix q(2, 2, {0, 0, 2, 0}), k(2, 2, {3, 0, 0, 0}), v(2, 2, {10, 0, 0, 20}), out(2, 2);
  const int32_t page = 0;
  const std::vector<SequenceRows> sequences = {{.num_rows = 2, .pages = &page}};
  backend_->RopeAndStore(q.View(), k.View(), v.View(), std::vector<float>{0}, sequences, cache.view,
                         0);
  backend_->PagedAttention(q.View(), sequences, cache.view, 0, 0.5f, out.View());
  const float first = 1 / (1 + std::exp(-3.0f));  // scores 2·3·0.5 and 0
  EXPECT_THAT(out.values, ElementsAre(10, 0, FloatEq(10 * first), FloatEq(20 * (1 - first))));
}

TEST_F(ReferenceTest, EncoderRowsSeeAllOfTheirOwnSequenceAndNothingElse) {
  Matrix q(4, 2, {1, 0, 0, 0, 0, 0, 5, 5}), k(4, 2, {0, 0, 2, 0, 7, 7, kNan, kNan});
  Matrix v(4, 2, {1, 2, 3, 4, 5, 6, kNan, kNan}), out(4, 2);
  const std::vector<SequenceRows> sequences = {{.first_row = 0, .num_rows = 2},
                                               {.first_row = 2, .num_rows = 1}};
  backend_->EncoderAttention(q.View(), k.View(), v.View(), sequences, 2, 1, out.View());
  const float second = 1 / (1 + std::exp(-2.0f));
  EXPECT_THAT(out.values, ElementsAre(FloatEq(1 + 2 * second), 3, 2, 3, 5, 6, 0, 0));
}

}  // namespace
}  // namespace nibble
