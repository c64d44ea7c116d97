#include "engine/model/weight_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/status.h"
#include "kernels/four_bit.h"
#include "kernels/half.h"
#include "tests/engine/model/model_files.h"
#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::LlamaShape;
using testing::ModelFolder;
using testing::TestBackend;

constexpr char kTable[] = "model.embed_tokens.weight";
constexpr char kDown[] = "model.layers.0.mlp.down_proj.weight";
constexpr char kNorm[] = "model.norm.weight";

// Values that no two neighbours share; |value| < 2.
float Noise(const std::string& name, int64_t i) {
  const auto mixed = static_cast<uint32_t>(static_cast<uint64_t>(i) * 2654435761u + name.size());
  return static_cast<float>(static_cast<int32_t>(mixed)) * 0x1p-31f * (i % 97 == 0 ? 2.0f : 0.5f);
}

// One inventory with memory of its own, loaded.
class Loaded {
 public:
  Loaded(const LlamaShape& shape, const ModelFolder::Value& value, const ModelOptions& options,
         const std::string& backend)
      : backend_(TestBackend(backend, 2)), folder_(shape, value) {
    auto checkpoint = Checkpoint::Open(folder_.path());
    if (!checkpoint.ok()) {
      status_ = checkpoint.status();
      return;
    }
    checkpoint_ = *std::move(checkpoint);
    inventory_ = std::make_unique<Inventory>(*checkpoint_, options);
    table_ = inventory_->Table(kTable, shape.vocab, shape.hidden);
    down_ = inventory_->Matrix(kDown, shape.hidden, shape.ffn);
    norm_ = inventory_->Vector(kNorm, shape.hidden);
    MemoryPlan plan;
    inventory_->Place(*backend_, &plan);
    weights_ = *backend_->Allocate(inventory_->weights_bytes());
    embeddings_ = *backend_->Allocate(inventory_->embeddings_bytes());
    inventory_->Bind(weights_.data(), embeddings_.data());
    const BackendLimits limits{.max_rows = 256, .max_k = std::max(shape.ffn, shape.hidden)};
    scratch_ = *backend_->Allocate(std::max<int64_t>(backend_->ScratchBytes(limits), 64));
    backend_->UseScratch(scratch_.data(), scratch_.bytes(), limits);
    ReadAhead ahead(inventory_->MatrixBytes());
    status_ = LoadWeights(
        inventory_.get(), backend_.get(), &ahead,
        [this](const LoadProgress& progress) { progress_.push_back(progress); },
        [] { return false; });
  }

  const absl::Status& status() const { return status_; }
  const Weight& table() const { return *table_; }
  const Weight& down() const { return *down_; }
  const VectorView& norm() const { return *norm_; }
  const std::vector<LoadProgress>& progress() const { return progress_; }
  int64_t CheckpointBytes() const { return inventory_->CheckpointBytes(); }

  // Rows of a table as the backend reads them.
  std::vector<float> Rows(int32_t first, int32_t count) {
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < count; ++i) ids.push_back(first + i);
    std::vector<float> out(static_cast<size_t>(count * table_->spec.k));
    backend_->Embedding(*table_, ids, false, {out.data(), count, table_->spec.k, table_->spec.k});
    return out;
  }

  // Column k of W, as W times a unit vector: exact, every other term being zero.
  std::vector<float> Column(const Weight& weight, int64_t k) {
    std::vector<float> x(static_cast<size_t>(weight.spec.k));
    std::vector<float> out(static_cast<size_t>(weight.spec.n));
    x[static_cast<size_t>(k)] = 1;
    const MatMulPart part{&weight, {}, {out.data(), 1, weight.spec.n, weight.spec.n}, false};
    backend_->MatMul({x.data(), 1, weight.spec.k, weight.spec.k}, std::span(&part, 1));
    return out;
  }

 private:
  std::unique_ptr<Backend> backend_;
  ModelFolder folder_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Inventory> inventory_;
  const Weight* table_ = nullptr;
  const Weight* down_ = nullptr;
  const VectorView* norm_ = nullptr;
  Buffer weights_, embeddings_, scratch_;
  absl::Status status_;
  std::vector<LoadProgress> progress_;
};

class LoadWeightsTest : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Backends, LoadWeightsTest, ::testing::Values("reference", "cpu"));

// Widths that are no multiple of the group, odd ones, and enough rows for several slices.
TEST_P(LoadWeightsTest, QuantizesSlicesAsTheWholeMatrixAtOnce) {
  for (const auto& [hidden, ffn] : {std::pair<int64_t, int64_t>{1000, 172}, {640, 333}, {64, 64}}) {
    const LlamaShape shape{.hidden = hidden, .ffn = ffn, .layers = 1, .vocab = 16, .dtype = "F32"};
    for (const bool double_quant : {true, false}) {
      Loaded loaded(shape, Noise, {.double_quant = double_quant}, GetParam());
      ASSERT_TRUE(loaded.status().ok()) << loaded.status();
      std::vector<float> values(static_cast<size_t>(hidden * ffn));
      for (size_t i = 0; i < values.size(); ++i) values[i] = Noise(kDown, static_cast<int64_t>(i));
      const FourBitMatrix want =
          *QuantizeFourBit(values, hidden, ffn, {.group_size = 64, .double_quant = double_quant});
      DequantizeFourBit(want, 0, values);
      for (const int64_t k : {int64_t{0}, ffn / 2, ffn - 1}) {
        const std::vector<float> column = loaded.Column(loaded.down(), k);
        for (int64_t n = 0; n < hidden; ++n) {
          ASSERT_EQ(column[static_cast<size_t>(n)], values[static_cast<size_t>(n * ffn + k)])
              << hidden << "x" << ffn << " at " << n << "," << k;
        }
      }
    }
  }
}

TEST_P(LoadWeightsTest, RoundsMatricesToBf16WhenAsked) {
  const LlamaShape shape{.hidden = 96, .ffn = 172, .layers = 1, .vocab = 16, .dtype = "F32"};
  Loaded loaded(shape, Noise, {.weights = WeightFormat::kBf16}, GetParam());
  ASSERT_TRUE(loaded.status().ok()) << loaded.status();
  for (const int64_t k : {0, 100, 171}) {
    const std::vector<float> column = loaded.Column(loaded.down(), k);
    for (int64_t n = 0; n < 96; ++n) {
      EXPECT_EQ(column[static_cast<size_t>(n)], Bf16ToF32(F32ToBf16(Noise(kDown, n * 172 + k))));
    }
  }
}

TEST_P(LoadWeightsTest, KeepsTheFilesOwnSixteenBitTypeInTables) {
  for (const auto& [dtype, format] :
       {std::pair<std::string, WeightFormat>{"F16", WeightFormat::kF16},
        {"BF16", WeightFormat::kBf16}}) {
    const LlamaShape shape{.layers = 1, .vocab = 100, .dtype = dtype};
    Loaded loaded(shape, Noise, {}, GetParam());
    ASSERT_TRUE(loaded.status().ok()) << loaded.status();
    EXPECT_EQ(loaded.table().spec.format, format);
    const std::vector<float> rows = loaded.Rows(0, 100);
    const DType half = dtype == "F16" ? DType::kF16 : DType::kBF16;
    for (size_t i = 0; i < rows.size(); ++i) {
      ASSERT_EQ(rows[i], HalfToF32(half, F32ToHalf(half, Noise(kTable, static_cast<int64_t>(i)))));
    }
  }
}

// Several tasks of 2^22 values, the one large value in the last.
TEST_P(LoadWeightsTest, HoldsAnFp32TableInFp16WhereEveryValueFitsElseInBf16) {
  const LlamaShape shape{.layers = 1, .vocab = 140000, .dtype = "F32"};
  for (const auto& [largest, format] :
       {std::pair<float, WeightFormat>{65504, WeightFormat::kF16}, {65505, WeightFormat::kBf16}}) {
    const auto value = [last = 140000 * 64 - 1, large = largest](const std::string& name,
                                                                 int64_t i) {
      return name == kTable && i == last ? -large : Noise(name, i & 1023);
    };
    Loaded loaded(shape, value, {}, GetParam());
    ASSERT_TRUE(loaded.status().ok()) << loaded.status();
    EXPECT_EQ(loaded.table().spec.format, format);
    const DType half = format == WeightFormat::kF16 ? DType::kF16 : DType::kBF16;
    for (const int32_t first : {0, 65535, 139990}) {
      const std::vector<float> rows = loaded.Rows(first, 10);
      for (size_t i = 0; i < rows.size(); ++i) {
        const float want = value(kTable, first * 64 + static_cast<int64_t>(i));
        ASSERT_EQ(rows[i], HalfToF32(half, F32ToHalf(half, want))) << first << " " << i;
      }
    }
    EXPECT_EQ(loaded.progress().back().done_bytes, loaded.CheckpointBytes());
  }
}

TEST_P(LoadWeightsTest, NamesTensorAndIndexOfWhatIsNotFinite) {
  const LlamaShape shape{.hidden = 512, .ffn = 172, .layers = 1, .vocab = 40, .dtype = "F32"};
  const std::tuple<std::string, int64_t, float, std::string> wrong[] = {
      {kDown, 400 * 172 + 3, std::nanf(""), "down_proj.weight\" is nan at [400,3]"},
      {kTable, 39 * 512 + 511, std::numeric_limits<float>::infinity(),
       "embed_tokens.weight\" is inf at [39,511]"},
      {kNorm, 7, -std::numeric_limits<float>::infinity(), "model.norm.weight\" is -inf at [7]"},
  };
  for (const auto& [tensor, index, number, message] : wrong) {
    const auto value = [&, name = tensor, at = index, bad = number](const std::string& other,
                                                                    int64_t i) {
      return other == name && i == at ? bad : Noise(other, i);
    };
    const Loaded loaded(shape, value, {}, GetParam());
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(loaded.status()), "WEIGHT_NOT_FINITE");
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("model.safetensors: tensor "));
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(message));
  }
}

TEST_P(LoadWeightsTest, RefusesFp32ThatWouldRoundToInfinityInBf16) {
  const LlamaShape shape{.layers = 1, .vocab = 40, .dtype = "F32"};
  const auto value = [](const std::string& name, int64_t i) {
    return name == kDown && i == 5 ? std::numeric_limits<float>::max() : Noise(name, i);
  };
  const Loaded loaded(shape, value, {.weights = WeightFormat::kBf16}, GetParam());
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("at [0,5]"));
}

TEST_P(LoadWeightsTest, KeepsANormInItsOwnType) {
  for (const auto& [name, dtype] : {std::pair<std::string, DType>{"F32", DType::kF32},
                                    {"F16", DType::kF16},
                                    {"BF16", DType::kBF16}}) {
    const Loaded loaded(LlamaShape{.layers = 1, .dtype = name}, Noise, {}, GetParam());
    ASSERT_TRUE(loaded.status().ok()) << loaded.status();
    ASSERT_EQ(loaded.norm().dtype, dtype);
    for (int64_t i = 0; i < 64; ++i) {
      const float want = Noise(kNorm, i);
      if (dtype == DType::kF32) {
        EXPECT_EQ(static_cast<const float*>(loaded.norm().data)[i], want);
      } else {
        EXPECT_EQ(static_cast<const uint16_t*>(loaded.norm().data)[i], F32ToHalf(dtype, want));
      }
    }
  }
}

TEST_P(LoadWeightsTest, ReportsGrowingBytesUpToTheTotal) {
  const Loaded loaded(LlamaShape{.layers = 1}, Noise, {}, GetParam());
  ASSERT_FALSE(loaded.progress().empty());
  int64_t last = -1;
  for (const LoadProgress& progress : loaded.progress()) {
    EXPECT_EQ(progress.stage, "weights");
    EXPECT_EQ(progress.total_bytes, loaded.CheckpointBytes());
    EXPECT_GT(progress.done_bytes, last);
    last = progress.done_bytes;
  }
  EXPECT_EQ(last, loaded.CheckpointBytes());
}

}  // namespace
}  // namespace nibble
