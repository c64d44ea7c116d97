// Embedding from quantized tables: exactly the values that the format's own dequantization gives,
// on every ISA row, in every numeric mode, and by the oracle.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

// The oracle, and the CPU in each mode.
std::vector<std::unique_ptr<Backend>> EveryBackend() {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(std::move(*MakeReferenceBackend()));
  for (const Compute compute : {Compute::kFp32, Compute::kBf16, Compute::kInt8}) {
    for (auto& backend : EveryCpu(compute)) backends.push_back(std::move(backend));
  }
  return backends;
}

// Each row of `values` [V, D] that an id names, read and added.
void ExpectRows(Backend& backend, const Weight& table, const std::vector<float>& values,
                const std::string& what) {
  const int64_t vocab = table.spec.n, width = table.spec.k;
  const std::vector<int32_t> ids = {
      0, static_cast<int32_t>(vocab - 1), static_cast<int32_t>(vocab / 2),
      0, static_cast<int32_t>(vocab / 3), static_cast<int32_t>(2 * vocab / 3)};
  const auto rows = static_cast<int64_t>(ids.size());
  Random random(9);
  const Matrix before(rows, width, random);
  Matrix want(rows, width), sum(rows, width), got(rows, width), accumulated = before;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      want.At(r, c) = values[static_cast<size_t>(ids[static_cast<size_t>(r)] * width + c)];
      sum.At(r, c) = before.At(r, c) + want.At(r, c);
    }
  }
  backend.Embedding(table, ids, false, got.View());
  backend.Embedding(table, ids, true, accumulated.View());
  ExpectSameBits(got, want, what);
  ExpectSameBits(accumulated, sum, what);
}

struct Shape {
  int64_t vocab, width;
};
// Whole panels and not, widths that are no lines, groups inside rows and across them, more than
// one chunk of a row.
const Shape kShapes[] = {{1, 1}, {16, 64}, {83, 96}, {300, 77}, {130, 576}, {19, 1100}, {7, 4096}};

// Some groups are zeros, some rows large.
std::vector<float> TableValues(const Shape& shape) {
  Random random(7);
  std::vector<float> values = random.Normals(shape.vocab * shape.width);
  for (size_t i = 0; i < values.size(); ++i) {
    if (i / 200 % 5 == 3) values[i] = 0;
    if (i / static_cast<size_t>(shape.width) % 3 == 1) values[i] *= 1000;
  }
  return values;
}

TEST(QuantizedEmbedding, ReadsEveryFourBitFormAsItIsDequantized) {
  const auto backends = EveryBackend();
  for (const Shape& shape : kShapes) {
    const std::vector<float> values = TableValues(shape);
    for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
      for (const int32_t group_size : {32, 64, 512}) {
        for (const bool double_quant : {false, true}) {
          const FourBitMatrix matrix = *QuantizeFourBit(
              values, shape.vocab, shape.width,
              {.format = format, .group_size = group_size, .double_quant = double_quant});
          std::vector<float> want(values.size());
          DequantizeFourBit(matrix, 0, want);
          for (const auto& backend : backends) {
            const PackedMatrix table(*backend, matrix);
            ExpectRows(*backend, table.weight(), want,
                       absl::StrCat(NameOf(*backend), " ", Name(format), " [", shape.vocab, ",",
                                    shape.width, "] group ", group_size));
            if (::testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(QuantizedEmbedding, ReadsTablesOfItsOwn) {
  for (const bool double_quant : {false, true}) {
    for (const int64_t width : {96, 128}) {
      const Shape shape = {50, width};
      FourBitMatrix matrix = *QuantizeFourBit(TableValues(shape), shape.vocab, width,
                                              {.group_size = 64, .double_quant = double_quant});
      matrix.codebook[3] = -0.4f;
      for (float& entry : matrix.nested_map) entry *= 1.01f;
      std::vector<float> want(static_cast<size_t>(matrix.NumValues()));
      DequantizeFourBit(matrix, 0, want);
      for (const auto& backend : EveryBackend()) {
        const PackedMatrix table(*backend, matrix);
        ASSERT_TRUE(table.weight().spec.own_tables);
        ExpectRows(*backend, table.weight(), want, NameOf(*backend));
      }
    }
  }
}

TEST(QuantizedEmbedding, ReadsInt8AsItIsDequantized) {
  for (const Shape& shape : kShapes) {
    const std::vector<float> values = TableValues(shape);
    Int8Matrix matrix = MakeInt8Matrix(shape.vocab, shape.width);
    ASSERT_TRUE(QuantizeInt8(0, values, &matrix).ok());
    matrix.codes[0] = -128;  // bitsandbytes never writes it; a file may hold it
    std::vector<float> want(values.size());
    DequantizeInt8(matrix, 0, want);
    for (const auto& backend : EveryBackend()) {
      const PackedMatrix table(*backend, matrix, 6.0f);
      ExpectRows(*backend, table.weight(), want,
                 absl::StrCat(NameOf(*backend), " [", shape.vocab, ",", shape.width, "]"));
    }
  }
}

TEST(QuantizedEmbeddingDeathTest, RefusesATableWithoutItsScales) {
  const auto backend = Cpu("", 1);
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kInt8}) {
    const PackedMatrix whole(*backend, WeightSpec{format, 16, 64, 64, false});
    Weight table = whole.weight();
    table.scales = nullptr;
    Matrix out(1, 64);
    const std::vector<int32_t> ids = {3};
    EXPECT_DEATH(backend->Embedding(table, ids, false, out.View()), "Embedding: a weight's scales");
  }
}

}  // namespace
}  // namespace nibble
