// Llama and its relatives: a causal decoder over a paged KV cache.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/inventory.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"

namespace nibble {

// Source: LLaMA (Touvron et al. 2023); tensor names as transformers' LlamaForCausalLM.
class Decoder final : public Model {
 public:
  static absl::Status Check(const ModelConfig& config);
  Decoder(const ModelConfig& config, const StepLimits& limits, Inventory* inventory,
          Workspace* workspace);

  bool can_generate() const override { return true; }
  bool can_embed() const override { return false; }
  absl::Status Decode(DecodeStep* step) override;
  absl::Status Encode(EncodeStep* step) override;

 private:
  struct Layer {
    const VectorView* attention_norm;
    Linear q, k, v, o;
    const VectorView* mlp_norm;
    Linear gate, up, down;
  };

  static Layer AskForLayer(const ModelConfig& config, int64_t layer, Inventory* inventory);
  void Attend(int64_t layer, const DecodeStep& step, const Activations& h);
  void FeedForward(int64_t layer, const Activations& h);
  void SampleRows(DecodeStep* step, const Activations& h);
  void SampleSlice(DecodeStep* step, size_t first, size_t count, const Activations& h);

  const Weight* embedding_;
  std::vector<Layer> layers_;
  const VectorView* final_norm_;
  const Weight* head_;
  std::vector<float> inv_freq_;

  // Workspace. R = limits.max_rows, L = limits.max_logit_rows.
  const Activations* hidden_;        // [R, D] the residual stream
  const Activations* normed_;        // [R, D]
  const Activations *q_, *k_, *v_;   // [R, H·hd], [R, KV·hd]
  const Activations* attended_;      // [R, H·hd]
  const Activations *gate_, *up_;    // [R, F]
  const Activations* last_;          // [L, D] the rows that are sampled
  const Activations* logits_;        // [L, V]
  std::vector<int32_t>* rows_;       // which rows those are
  std::vector<SamplingPlan> plans_;  // plans of one slice, their rows counted in the slice
};

}  // namespace nibble
