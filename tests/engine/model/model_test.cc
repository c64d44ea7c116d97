#include "engine/model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "engine/status.h"
#include "tests/engine/model/model_files.h"
#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::LlamaShape;
using testing::ModelFolder;
using testing::TestBackend;

constexpr int64_t kPlenty = int64_t{1} << 42;

void IgnoreProgress(const LoadProgress&) {}
bool NeverCancelled() { return false; }

std::unique_ptr<Checkpoint> OpenOrDie(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) {
    ADD_FAILURE() << checkpoint.status();
    std::abort();
  }
  return *std::move(checkpoint);
}

std::vector<ModelOptions> ManyOptions() {
  std::vector<ModelOptions> all;
  for (const WeightFormat weights : {WeightFormat::kNf4, WeightFormat::kBf16}) {
    for (const int32_t group_size : {32, 64, 4096}) {
      for (const bool double_quant : {true, false}) {
        all.push_back({.weights = weights,
                       .head = group_size == 32   ? WeightFormat::kNf4
                               : group_size == 64 ? WeightFormat::kInt8
                                                  : WeightFormat::kBf16,
                       .group_size = group_size,
                       .double_quant = double_quant,
                       .kv_dtype = double_quant ? DType::kF32 : DType::kF16,
                       .max_context = group_size == 32 ? 100 : 0,
                       .kv_bytes = group_size == 64 ? 1 << 20 : 0});
      }
    }
  }
  return all;
}

std::vector<std::pair<std::string, std::string>> Items(const MemoryPlan& plan) {
  std::vector<std::pair<std::string, std::string>> items;
  for (const MemoryItem& item : plan.items) {
    items.emplace_back(item.name, std::string(Name(item.kind)) + std::to_string(item.bytes));
  }
  return items;
}

TEST(Model, LoadTakesExactlyWhatPlanSays) {
  const LlamaShape odd{.hidden = 52, .ffn = 173, .heads = 3, .kv_heads = 1, .vocab = 67};
  const ModelFolder odd_folder(odd);
  const auto backend = TestBackend("cpu", 2);
  for (const std::string& path :
       {testing::GoldenPath("models/stories260k"), testing::GoldenPath("models/tiny_chat"),
        testing::GoldenPath("models/tiny_bert"), odd_folder.path()}) {
    const auto checkpoint = OpenOrDie(path);
    for (const ModelOptions& options : ManyOptions()) {
      for (const StepLimits& limits : {StepLimits{}, StepLimits{33, 7, 5}}) {
        const auto plan = Model::Plan(*checkpoint, options, limits, *backend, kPlenty);
        ASSERT_TRUE(plan.ok()) << path << plan.status();
        Ledger ledger("cpu", kPlenty);
        const auto model = Model::Load("m", *checkpoint, options, limits, backend.get(), &ledger,
                                       IgnoreProgress, NeverCancelled);
        ASSERT_TRUE(model.ok()) << path << model.status();
        EXPECT_EQ(Items((*model)->plan()), Items((*plan)->plan())) << path;
        EXPECT_EQ(ledger.used_bytes(), (*plan)->plan().Total());
        for (const Ledger::Entry& entry : ledger.Snapshot()) {
          EXPECT_EQ(entry.bytes, (*plan)->plan().Total(entry.kind)) << Name(entry.kind);
        }
      }
    }
  }
}

TEST(Model, ReturnsItsMemoryToTheLedgerWhenItDies) {
  const auto backend = TestBackend("cpu");
  const auto checkpoint = OpenOrDie(testing::GoldenPath("models/tiny_chat"));
  Ledger ledger("cpu", kPlenty);
  {
    const auto model = Model::Load("m", *checkpoint, {}, {}, backend.get(), &ledger, IgnoreProgress,
                                   NeverCancelled);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_GT(ledger.used_bytes(), 0);
  }
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(Model, BringsTokenizerAndTemplateAndCountsThem) {
  const auto model =
      testing::LoadOrDie(testing::GoldenPath("models/tiny_chat"), {}, TestBackend("cpu"));
  ASSERT_NE(model->tokenizer(), nullptr);
  ASSERT_NE(model->chat_template(), nullptr);
  EXPECT_EQ(model->plan().Total(MemoryKind::kTokenizer),
            model->tokenizer()->MemoryBytes() + model->chat_template()->MemoryBytes());
  EXPECT_EQ(model->eos_token(), "<|im_end|>");
  const auto ids_only =
      testing::LoadOrDie(testing::GoldenPath("models/stories260k"), {}, TestBackend("cpu"));
  EXPECT_EQ(ids_only->tokenizer(), nullptr);
  EXPECT_EQ(ids_only->chat_template(), nullptr);
  EXPECT_EQ(ids_only->plan().Total(MemoryKind::kTokenizer), 0);
}

TEST(Model, TellsItsOptionsWithTheDefaultsFilledIn) {
  const auto model =
      testing::LoadOrDie(testing::GoldenPath("models/tiny_chat"), {}, TestBackend("cpu"));
  EXPECT_EQ(model->options().weights, WeightFormat::kNf4);
  EXPECT_EQ(model->options().kv_dtype, DType::kBF16) << "the file's matrices are bf16";
  EXPECT_EQ(model->max_context(), 512);
  EXPECT_EQ(model->kv_cache().num_pages, 16384 / 16);
  EXPECT_EQ(model->options().kv_bytes, model->plan().Total(MemoryKind::kKvCache));
}

struct Published {
  const char* name;
  LlamaShape shape;
  int64_t plain_bytes;         // models.md §11, "NF4 total"
  int64_t double_quant_bytes;  // "NF4+DQ total"
  int64_t kv_bytes_per_token;
};

TEST(Model, PlansThePublishedSizesFromHeadersAlone) {
  const Published models[] = {
      {"Llama-2-7B", {4096, 11008, 32, 32, 32, 128, 32000, 4096}, 4167573504, 3865592704, 524288},
      {"Llama-3-8B", {4096, 14336, 32, 32, 8, 128, 128256, 8192}, 6027747328, 5702296448, 131072},
      {"Llama-3-70B",
       {8192, 28672, 80, 64, 8, 128, 128256, 8192},
       42709041152,
       39517112512,
       327680},
      {"SmolLM2-135M", {576, 1536, 30, 9, 3, 64, 49152, 8192, true}, 116413056, 111463416, 23040},
      {"TinyLlama-1.1B", {2048, 5632, 22, 32, 4, 64, 32000, 2048}, 807325696, 762146408, 22528},
  };
  const auto backend = TestBackend("cpu");
  for (const Published& model : models) {
    const ModelFolder folder(model.shape);
    const auto checkpoint = OpenOrDie(folder.path());
    for (const bool double_quant : {false, true}) {
      const auto plan =
          Model::Plan(*checkpoint, {.double_quant = double_quant}, {}, *backend, kPlenty);
      ASSERT_TRUE(plan.ok()) << model.name << plan.status();
      EXPECT_EQ((*plan)->plan().Total(MemoryKind::kWeights) +
                    (*plan)->plan().Total(MemoryKind::kEmbeddings),
                double_quant ? model.double_quant_bytes : model.plain_bytes)
          << model.name;
      EXPECT_EQ((*plan)->plan().Total(MemoryKind::kKvCache), 16384 * model.kv_bytes_per_token)
          << model.name;
    }
  }
}

TEST(Model, PlansInt8AndFp4FromHeadersAlone) {
  const LlamaShape shape = {4096, 11008, 32, 32, 32, 128, 32000, 4096};  // Llama-2-7B
  const ModelFolder folder(shape);
  const auto checkpoint = OpenOrDie(folder.path());
  const auto backend = TestBackend("cpu");
  const auto weights = [&](const ModelOptions& options) {
    const auto model = Model::Plan(*checkpoint, options, {}, *backend, kPlenty);
    EXPECT_TRUE(model.ok()) << model.status();
    return (*model)->plan().Total(MemoryKind::kWeights) +
           (*model)->plan().Total(MemoryKind::kEmbeddings);
  };
  // 224 matrices of 6,476,005,376 values in 4·4096 + 2·11008 + 4096 rows a layer; the rest in 16
  // bits.
  constexpr int64_t kValues = 6476005376, kRows = 32 * (5 * 4096 + 2 * 11008), kRest = 262410240;
  EXPECT_EQ(weights({.weights = WeightFormat::kInt8}), kValues + 4 * kRows + 2 * kRest);
  EXPECT_EQ(weights({.weights = WeightFormat::kFp4}), 3865592704) << "NF4's";
  EXPECT_EQ(weights({.weights = WeightFormat::kFp4, .double_quant = false}), 4167573504);
}

TEST(Model, RefusesBeforeLoadingWhatDoesNotFitAndSaysWhy) {
  const auto backend = TestBackend("cpu");
  const auto checkpoint = OpenOrDie(testing::GoldenPath("models/tiny_chat"));
  Ledger ledger("cpu", 100'000);
  const auto model =
      Model::Load("m", *checkpoint, {}, {}, backend.get(), &ledger, IgnoreProgress, NeverCancelled);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(model.status()), "OUT_OF_MEMORY_BUDGET");
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("workspace "));
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(Model, LetsTheLedgerRefuseAnExplicitKvSize) {
  const auto backend = TestBackend("cpu");
  const auto checkpoint = OpenOrDie(testing::GoldenPath("models/tiny_chat"));
  Ledger ledger("cpu", 50'000'000);
  const auto model = Model::Load("m", *checkpoint, {.kv_bytes = 60'000'000}, {}, backend.get(),
                                 &ledger, IgnoreProgress, NeverCancelled);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("kv_cache 60.0 MB"));
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(Model, StopsWhenCancelledAndKeepsNothing) {
  const ModelFolder folder({.hidden = 512, .ffn = 1024, .layers = 8, .head_dim = 128});
  const auto backend = TestBackend("cpu", 2);
  const auto checkpoint = OpenOrDie(folder.path());
  Ledger ledger("cpu", kPlenty);
  int polls = 0;
  const auto model = Model::Load("m", *checkpoint, {}, {}, backend.get(), &ledger, IgnoreProgress,
                                 [&] { return ++polls == 1; });
  EXPECT_EQ(model.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(ReasonOf(model.status()), "LOAD_CANCELLED");
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(Model, RefusesANanAndKeepsNothing) {
  const ModelFolder folder(LlamaShape{}, [](const std::string& name, int64_t i) {
    return name == "model.layers.1.mlp.up_proj.weight" && i == 70 ? std::nanf("") : 0.5f;
  });
  const auto backend = TestBackend("cpu", 2);
  const auto checkpoint = OpenOrDie(folder.path());
  Ledger ledger("cpu", kPlenty);
  const auto model =
      Model::Load("m", *checkpoint, {}, {}, backend.get(), &ledger, IgnoreProgress, NeverCancelled);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.status().message()),
              HasSubstr("\"model.layers.1.mlp.up_proj.weight\" is nan at [1,6]"));
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(Model, ReportsItsStagesToTheEnd) {
  const auto backend = TestBackend("cpu", 2);
  const auto checkpoint = OpenOrDie(testing::GoldenPath("models/stories260k"));
  Ledger ledger("cpu", kPlenty);
  std::vector<LoadProgress> seen;
  const auto model = Model::Load(
      "m", *checkpoint, {}, {}, backend.get(), &ledger,
      [&](const LoadProgress& progress) { seen.push_back(progress); }, NeverCancelled);
  ASSERT_TRUE(model.ok());
  ASSERT_GE(seen.size(), 2u);
  EXPECT_EQ(seen.front().stage, "weights");
  EXPECT_EQ(seen.back().stage, "ready");
  EXPECT_EQ(seen.back().done_bytes, seen.back().total_bytes);
  EXPECT_EQ(seen.back().total_bytes, 260032 * 2) << "the file's parameters in 16 bits";
}

// A device whose allocator rounds up behind the plan's back. It computes nothing.
class RoundingBackend : public Backend {
 public:
  explicit RoundingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  std::string device() const override { return inner_->device(); }
  std::string isa() const override { return inner_->isa(); }
  int num_threads() const override { return inner_->num_threads(); }
  Compute compute() const override { return inner_->compute(); }
  absl::StatusOr<Buffer> Allocate(int64_t bytes) override { return inner_->Allocate(bytes + 4096); }
  int64_t ScratchBytes(const BackendLimits& limits) const override {
    return inner_->ScratchBytes(limits);
  }
  void UseScratch(void* scratch, int64_t bytes, const BackendLimits& limits) override {
    inner_->UseScratch(scratch, bytes, limits);
  }
  PackedSize PackedBytes(const WeightSpec& spec) const override {
    return inner_->PackedBytes(spec);
  }
  absl::Status PackFourBit(const FourBitMatrix& matrix, Weight* weight) override {
    return inner_->PackFourBit(matrix, weight);
  }
  absl::Status PackInt8(const Int8Matrix& matrix, Weight* weight) override {
    return inner_->PackInt8(matrix, weight);
  }
  absl::Status Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                      Weight* weight) override {
    return inner_->Pack16(first_row, count, values, weight);
  }
  absl::Status CopyToDevice(void* device, const void* host, int64_t bytes) override {
    return inner_->CopyToDevice(device, host, bytes);
  }
  void CopyToHost(void* host, const void* device, int64_t bytes) override {
    inner_->CopyToHost(host, device, bytes);
  }
  absl::Status Finish() override { return absl::OkStatus(); }
  void Park() override {}

 private:
  void DoMatMul(const Activations&, std::span<const MatMulPart>) override { std::abort(); }
  void DoRmsNorm(const Activations&, const VectorView&, float, const Activations&) override {
    std::abort();
  }
  void DoLayerNorm(const Activations&, const Activations&, const VectorView&, const VectorView&,
                   float, const Activations&) override {
    std::abort();
  }
  void DoEmbedding(const Weight&, std::span<const int32_t>, bool, const Activations&) override {
    std::abort();
  }
  void DoRopeAndStore(const Activations&, const Activations&, const Activations&,
                      std::span<const float>, std::span<const SequenceRows>, const KvCache&,
                      int64_t) override {
    std::abort();
  }
  void DoPagedAttention(const Activations&, std::span<const SequenceRows>, const KvCache&, int64_t,
                        float, const Activations&) override {
    std::abort();
  }
  void DoEncoderAttention(const Activations&, const Activations&, const Activations&,
                          std::span<const SequenceRows>, int64_t, float,
                          const Activations&) override {
    std::abort();
  }
  void DoSiluMul(const Activations&, const Activations&, const Activations&) override {
    std::abort();
  }
  void DoGelu(const Activations&, bool) override { std::abort(); }
  void DoGatherRows(const Activations&, std::span<const int32_t>, const Activations&) override {
    std::abort();
  }
  void DoPool(const Activations&, std::span<const SequenceRows>, Pooling, bool,
              const Activations&) override {
    std::abort();
  }
  void DoSample(const Activations&, std::span<const SamplingPlan>,
                std::span<SampledToken>) override {
    std::abort();
  }

  std::unique_ptr<Backend> inner_;
};

TEST(Model, FailsWhenItTookOtherThanItPlanned) {
  RoundingBackend backend(TestBackend("cpu"));
  const auto checkpoint = OpenOrDie(testing::GoldenPath("models/stories260k"));
  Ledger ledger("cpu", kPlenty);
  const auto model =
      Model::Load("m", *checkpoint, {}, {}, &backend, &ledger, IgnoreProgress, NeverCancelled);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ReasonOf(model.status()), "PLAN_MISMATCH");
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("m: weights was planned to take"));
  EXPECT_EQ(ledger.used_bytes(), 0);
}

// A device whose attention does not take heads of 8.
class NarrowBackend final : public RoundingBackend {
 public:
  using RoundingBackend::RoundingBackend;
  absl::Status CheckLimits(const BackendLimits& limits) const override {
    return limits.max_head_dim < 8 ? absl::OkStatus() : absl::UnimplementedError("head_dim: got 8");
  }
};

TEST(Model, RefusesAModelThatTheDeviceCannotServe) {
  NarrowBackend backend(TestBackend("cpu"));
  const auto checkpoint = OpenOrDie(testing::GoldenPath("models/stories260k"));
  Ledger ledger("cpu", kPlenty);
  const auto model =
      Model::Load("m", *checkpoint, {}, {}, &backend, &ledger, IgnoreProgress, NeverCancelled);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReasonOf(model.status()), "UNSUPPORTED_MODEL");
  EXPECT_EQ(ledger.used_bytes(), 0);
}

}  // namespace
}  // namespace nibble
