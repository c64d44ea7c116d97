// A model without weights whose tokens are a hash of everything it should have seen: of the keys
// that it finds through the page tables, so that a mixed-up page, a missing position or a stale
// slot changes the answer.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/inventory.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"

namespace nibble {

struct FakeModelOptions {
  bool embeds = false;     // an encoder instead of a decoder
  bool successor = false;  // the next token is the last one plus 1, so that texts can be read
  int64_t max_context = 256;
  int64_t num_pages = 1024;
  int64_t vocab = 64;
  int64_t hidden = 8;  // of an encoder
  StepLimits limits{.max_rows = 64, .max_sequences = 64, .max_logit_rows = 16};
  GenerationDefaults generation;
  EmbeddingConfig embedding;
  std::shared_ptr<Tokenizer> tokenizer;
  std::string chat_template;                         // empty: none
  std::function<void(int64_t rows)> on_step;         // before a step is computed
  std::shared_ptr<std::atomic<int>> faults_to_come;  // > 0: the next step fails
};

// Checks every step that it is asked for: limits, order of rows and plans, no page in two hands.
class FakeModel final : public Model {
 public:
  FakeModel(std::string name, const FakeModelOptions& options);

  bool can_generate() const override { return !fake_.embeds; }
  bool can_embed() const override { return fake_.embeds; }
  absl::Status Decode(DecodeStep* step) override;
  absl::Status Encode(EncodeStep* step) override;

 private:
  struct Stored {
    uint64_t before = 0;  // hash of all earlier tokens: a key depends on all before it
    int32_t token = -1;
  };

  Stored& Key(const SequenceRows& rows, int64_t position);
  // The hash of every position before `end`, read through the pages.
  uint64_t Prefix(const SequenceRows& rows, int64_t end);
  void Sample(const SamplingPlan& plan, uint64_t context, int32_t last, SampledToken* out) const;
  void CheckStep(const DecodeStep& step) const;
  bool Faulty(size_t rows);

  const FakeModelOptions fake_;
  std::vector<Stored> keys_;
};

}  // namespace nibble
