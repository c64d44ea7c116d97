// options.head: lm_head and the token embeddings quantized while a model loads. The oracle is a
// model without layers to speak of, whose logits are Head · RMSNorm(Table[token]).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/inventory.h"
#include "engine/quantize/quantize.h"
#include "engine/status.h"
#include "tests/engine/model/model_files.h"
#include "tests/engine/model/testing.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using testing::Encode;
using testing::GoldenPath;
using ::testing::HasSubstr;
using testing::LlamaShape;
using testing::LoadedModel;
using testing::LoadOrDie;
using testing::Logprobs;
using testing::ModelFolder;
using testing::TestBackend;

constexpr int64_t kPlenty = int64_t{1} << 42;
constexpr char kTable[] = "model.embed_tokens.weight";
constexpr char kHead[] = "lm_head.weight";

// Layers that add nothing: zeros come out of their last matrices. Else noise below 1, norms of 1.
float ValueOf(const std::string& name, int64_t i) {
  if (name.find("norm") != std::string::npos) return 1;
  if (name.find("o_proj") != std::string::npos) return 0;
  if (name.find("down_proj") != std::string::npos) return 0;
  const auto mixed = static_cast<uint32_t>(static_cast<uint64_t>(i) * 2654435761u + name.size());
  return static_cast<float>(static_cast<int32_t>(mixed)) * 0x1p-31f;
}

std::vector<float> ValuesOf(const std::string& name, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = ValueOf(name, static_cast<int64_t>(i));
  return values;
}

FourBitMatrix Quantized(const std::vector<float>& values, int64_t n, int64_t k,
                        const ModelOptions& options) {
  return *QuantizeFourBit(values, n, k,
                          {.group_size = options.group_size, .double_quant = options.double_quant});
}

// A matrix [n, k] as options.head holds it: packed for the oracle's backend, and what it stands
// for.
struct HeadMatrix {
  HeadMatrix(const std::string& name, int64_t n, int64_t k, const ModelOptions& options,
             Backend* oracle)
      : values(ValuesOf(name, n * k)) {
    weight.spec = {options.head, n, k, options.group_size, options.double_quant};
    const PackedSize size = oracle->PackedBytes(weight.spec);
    const std::pair<void**, int64_t> parts[] = {
        {&weight.codes, size.codes}, {&weight.scales, size.scales}, {&weight.nested, size.nested}};
    for (const auto& [part, bytes] : parts) {
      *part = memory.emplace_back(*oracle->Allocate(bytes)).data();
    }
    if (options.head == WeightFormat::kInt8) {
      Int8Matrix matrix = MakeInt8Matrix(n, k);
      EXPECT_TRUE(QuantizeInt8(0, values, &matrix).ok());
      EXPECT_TRUE(oracle->PackInt8(matrix, &weight).ok());
      DequantizeInt8(matrix, 0, values);
    } else {
      const FourBitMatrix matrix = Quantized(values, n, k, options);
      EXPECT_TRUE(oracle->PackFourBit(matrix, &weight).ok());
      DequantizeFourBit(matrix, 0, values);
    }
  }

  std::vector<float> values;
  Weight weight;
  std::vector<Buffer> memory;
};

// log p(tokens[i + 1] | tokens[i]), and what fp32 may make of it.
struct Expected {
  std::vector<double> logprobs;
  double bound = 0;
};

Expected Expect(const LlamaShape& shape, const ModelOptions& options,
                const std::vector<int32_t>& tokens) {
  const auto oracle = TestBackend("reference"), cpu = TestBackend("cpu");
  const int64_t vocab = shape.vocab, width = shape.hidden;
  const HeadMatrix table(kTable, vocab, width, options, oracle.get());
  const HeadMatrix head(shape.tied ? kTable : kHead, vocab, width, options, oracle.get());
  const std::vector<float> ones(static_cast<size_t>(width), 1.0f);
  Expected expected;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    std::vector<float> x(table.values.begin() + tokens[i] * width,
                         table.values.begin() + (tokens[i] + 1) * width);
    const Activations row = {x.data(), 1, width, width};
    cpu->RmsNorm(row, {ones.data(), DType::kF32, width}, 1e-5f, row);
    std::vector<float> logits(static_cast<size_t>(vocab));
    const MatMulPart part = {&head.weight, {}, {logits.data(), 1, vocab, vocab}, false};
    oracle->MatMul(row, {&part, 1});
    double sum = 0, magnitude = 0;
    for (int64_t v = 0; v < vocab; ++v) {
      sum += std::exp(static_cast<double>(logits[static_cast<size_t>(v)]));
      double all = 0;
      for (int64_t k = 0; k < width; ++k) {
        all += std::abs(static_cast<double>(x[static_cast<size_t>(k)]) *
                        static_cast<double>(head.values[static_cast<size_t>(v * width + k)]));
      }
      magnitude = std::max(magnitude, all);
    }
    expected.logprobs.push_back(static_cast<double>(logits[static_cast<size_t>(tokens[i + 1])]) -
                                std::log(sum));
    // A logit is a sum of `width` terms, each rounded at most with every addition; the one asked
    // for and the largest ones are wrong by so much, and a softmax over `vocab` adds as many.
    const double steps = 2 * static_cast<double>(width + 8) * magnitude + 64;
    expected.bound = std::max(expected.bound, steps * 0x1p-24);
  }
  return expected;
}

double Worst(const std::vector<float>& got, const std::vector<double>& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - want[i]));
  }
  return worst;
}

struct Form {
  const char* name;
  ModelOptions options;
};
const Form kForms[] = {
    {"nf4", {.head = WeightFormat::kNf4}},
    {"nf4 in groups of 32, fp32 scales",
     {.head = WeightFormat::kNf4, .group_size = 32, .double_quant = false}},
    {"int8", {.head = WeightFormat::kInt8}},
};

class HeadOfABackend : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Backends, HeadOfABackend, ::testing::Values("cpu", "reference"));

TEST_P(HeadOfABackend, TiedOrNotTheLogitsAreThoseOfTheQuantizedMatrices) {
  const std::vector<int32_t> tokens = {5, 0, 99, 42, 16, 77, 15, 3, 98, 64, 1, 31};
  for (const bool tied : {false, true}) {
    for (const int64_t hidden : {64, 96}) {  // groups of 64 straddle rows of 96
      const LlamaShape shape{
          .hidden = hidden, .layers = 1, .vocab = 100, .tied = tied, .dtype = "F32"};
      const ModelFolder folder(shape, ValueOf);
      const LoadedModel sixteen = LoadOrDie(folder.path(), {}, TestBackend("cpu"));
      for (const Form& form : kForms) {
        SCOPED_TRACE(::testing::Message() << form.name << (tied ? ", tied, " : ", ") << hidden);
        const LoadedModel model = LoadOrDie(folder.path(), form.options, TestBackend(GetParam()));
        const Expected expected = Expect(shape, form.options, tokens);
        EXPECT_LE(Worst(Logprobs(model.model.get(), tokens), expected.logprobs), expected.bound);
        EXPECT_EQ(model.GemmCalls(WeightFormat::kF16), 0) << "the head is counted by its form";
        EXPECT_GT(Worst(Logprobs(sixteen.model.get(), tokens), expected.logprobs),
                  20 * expected.bound)
            << "16 bits say something else";
      }
    }
  }
}

TEST_P(HeadOfABackend, AnEncodersWordTableFollowsItsSmallTablesDoNot) {
  const std::string path = GoldenPath("models/tiny_bert");
  const std::vector<std::vector<int32_t>> inputs = {{2, 40, 41, 42, 200, 237, 5, 3}, {2, 17, 3}};
  for (const Form& form : kForms) {
    ModelOptions plain = form.options;
    plain.head = WeightFormat::kBf16;
    const LoadedModel sixteen = LoadOrDie(path, plain, TestBackend(GetParam()));
    const auto without = Encode(sixteen.model.get(), inputs, Pooling::kMean, false);
    const LoadedModel model = LoadOrDie(path, form.options, TestBackend(GetParam()));
    const LoadedModel other = LoadOrDie(path, form.options, TestBackend("cpu", 2));
    const auto got = Encode(model.model.get(), inputs, Pooling::kMean, false);
    const auto same = Encode(other.model.get(), inputs, Pooling::kMean, false);
    for (size_t i = 0; i < inputs.size(); ++i) {
      for (size_t j = 0; j < got[i].size(); ++j) {
        EXPECT_NEAR(got[i][j], same[i][j], 3e-5) << form.name << ": as encoder_test.cc bounds it";
      }
      // NF4's RMS error is a tenth of a value: a cosine of 1 - 0.1² / 2, and as much from layers.
      EXPECT_GT(testing::Cosine(got[i], without[i]), 0.99) << form.name;
      EXPECT_NE(got[i], without[i]) << form.name;
    }
    std::map<std::string, int64_t> bytes;
    for (const MemoryItem& item : model->plan().items) bytes[item.name] = item.bytes;
    const ModelConfig& config = model->config();
    const WeightSpec words = {form.options.head, config.vocab, config.hidden,
                              form.options.group_size, form.options.double_quant};
    EXPECT_EQ(bytes["embeddings.word_embeddings.weight"],
              model.backend->PackedBytes(words).Total());
    for (const auto& [name, rows] :
         {std::pair<std::string, int64_t>{"position", config.max_positions},
          {"token_type", config.type_vocab}}) {
      const WeightSpec table = {WeightFormat::kF16, rows, config.hidden};
      EXPECT_EQ(bytes["embeddings." + name + "_embeddings.weight"],
                model.backend->PackedBytes(table).Total());
    }
  }
}

// models.md §11, NF4 with double quantization: what n values take.
int64_t Nf4Bytes(int64_t n) {
  const int64_t groups = (n + 63) / 64;
  return n / 2 + groups + 4 * ((groups + 255) / 256) + 4;
}

TEST(Head, TakesThePlannedBytesOfRealModels) {
  struct Published {
    LlamaShape shape;
    int64_t sixteen_bytes;  // weights in NF4, head and table in 16 bits
    int64_t matrices;       // head and table
  };
  const Published models[] = {
      {{4096, 14336, 32, 32, 8, 128, 128256, 8192}, 5702296448, 2},  // Llama-3-8B
      {{576, 1536, 30, 9, 3, 64, 49152, 8192, true}, 111463416, 1},  // SmolLM2-135M
  };
  const auto backend = TestBackend("cpu");
  for (const Published& model : models) {
    const ModelFolder folder(model.shape);
    const auto checkpoint = Checkpoint::Open(folder.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const int64_t values = model.shape.vocab * model.shape.hidden;
    const std::pair<WeightFormat, int64_t> forms[] = {
        {WeightFormat::kBf16, 2 * values},
        {WeightFormat::kInt8, values + 4 * model.shape.vocab},
        {WeightFormat::kNf4, Nf4Bytes(values)}};
    for (const auto& [head, bytes] : forms) {
      const auto plan = Model::Plan(**checkpoint, {.head = head}, {}, *backend, kPlenty);
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_EQ((*plan)->plan().Total(MemoryKind::kWeights) +
                    (*plan)->plan().Total(MemoryKind::kEmbeddings),
                model.sixteen_bytes - model.matrices * (2 * values - bytes))
          << Name(head) << " " << model.shape.vocab;
    }
  }
}

std::map<std::string, WeightFormat> FormsOf(const std::string& path, const ModelOptions& options) {
  const auto checkpoint = Checkpoint::Open(path);
  const ModelConfig& config = (*checkpoint)->config();
  Inventory inventory(**checkpoint, options);
  inventory.TokenTable(kTable, config.vocab, config.hidden);
  inventory.Head(kHead, config.vocab, config.hidden);
  EXPECT_TRUE(inventory.status().ok()) << inventory.status();
  std::map<std::string, WeightFormat> forms;
  for (const PlacedMatrix& matrix : inventory.matrices()) {
    forms[matrix.tensor->name] = matrix.weight.spec.format;
  }
  return forms;
}

TEST(Head, SkippedModulesKeepSixteenBits) {
  const ModelFolder folder(LlamaShape{}, ValueOf);
  const ModelOptions table = {.head = WeightFormat::kNf4, .skip_modules = {"lm_head"}};
  EXPECT_EQ(FormsOf(folder.path(), table)[kTable], WeightFormat::kNf4);
  EXPECT_EQ(FormsOf(folder.path(), table)[kHead], WeightFormat::kBf16);
  const ModelOptions head = {.head = WeightFormat::kInt8, .skip_modules = {"embed_tokens"}};
  EXPECT_EQ(FormsOf(folder.path(), head)[kTable], WeightFormat::kBf16);
  EXPECT_EQ(FormsOf(folder.path(), head)[kHead], WeightFormat::kInt8);
}

TEST(Head, OfAQuantizedFileIsQuantizedWhereTheFileHoldsItInSixteenBits) {
  for (const char* file : {"bnb/nf4_nested", "bnb/fp4", "bnb/int8_outliers"}) {
    for (const WeightFormat head : {WeightFormat::kNf4, WeightFormat::kInt8}) {
      const LoadedModel model = LoadOrDie(GoldenPath(file), {.head = head}, TestBackend("cpu"));
      EXPECT_EQ(model->options().head, head);
      EXPECT_EQ(testing::Generate(model.model.get(), {1, 87, 15}, 3).sampled.size(), 3u);
      EXPECT_EQ(model.GemmCalls(WeightFormat::kF16) + model.GemmCalls(WeightFormat::kBf16), 0)
          << file;
      EXPECT_GT(model.GemmCalls(head), 0) << file;
    }
  }
}

TEST(Head, OfAnotherFormThanTheFilesIsRefusedByField) {
  const ModelFolder plain(LlamaShape{}, ValueOf);
  const testing::TempDir directory;
  ASSERT_TRUE(QuantizeCheckpoint(plain.path(), directory.File("q"), {.skip_modules = {}},
                                 [](int64_t, int64_t) {})
                  .ok());
  EXPECT_EQ(FormsOf(directory.File("q"), {})[kHead], WeightFormat::kNf4);
  EXPECT_EQ(FormsOf(directory.File("q"), {.head = WeightFormat::kNf4})[kHead], WeightFormat::kNf4);
  const auto checkpoint = Checkpoint::Open(directory.File("q"));
  const absl::Status status =
      Model::Plan(**checkpoint, {.head = WeightFormat::kInt8}, {}, *TestBackend("cpu"), kPlenty)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "OPTION_OUT_OF_RANGE");
  EXPECT_EQ(FieldOf(status), "options.head");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("tensor \"lm_head.weight\" is quantized already, to nf4; leave head out"));
}

TEST(Head, NamesTheTableThatInt8CannotHold) {
  const ModelFolder folder(LlamaShape{.layers = 1, .dtype = "F32"},
                           [](const std::string& name, int64_t i) {
                             return name == kTable && i == 3 * 64 + 7 ? 70000.0f : ValueOf(name, i);
                           });
  const auto checkpoint = Checkpoint::Open(folder.path());
  const auto backend = TestBackend("cpu");
  Ledger ledger("cpu", kPlenty);
  const absl::Status status =
      Model::Load(
          "m", **checkpoint, {.head = WeightFormat::kInt8}, {}, backend.get(), &ledger,
          [](const LoadProgress&) {}, [] { return false; })
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"model.embed_tokens.weight\""));
  EXPECT_EQ(ledger.used_bytes(), 0);
}

}  // namespace
}  // namespace nibble
