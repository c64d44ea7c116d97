// BERT and its relatives: a bidirectional encoder over packed sequences, and one vector per text.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/inventory.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"

namespace nibble {

// Source: BERT (Devlin et al. 2018); tensor names as transformers' BertModel.
class Encoder final : public Model {
 public:
  static absl::Status Check(const ModelConfig& config);
  Encoder(const ModelConfig& config, const StepLimits& limits, Inventory* inventory,
          Workspace* workspace);

  bool can_generate() const override { return false; }
  bool can_embed() const override { return true; }
  absl::Status Decode(DecodeStep* step) override;
  absl::Status Encode(EncodeStep* step) override;

 private:
  struct Norm {
    const VectorView *weight, *bias;
  };
  struct Layer {
    Linear q, k, v, o;
    Norm attention_norm;
    Linear up, down;
    Norm mlp_norm;
  };

  static Norm AskForNorm(const std::string& prefix, int64_t length, Inventory* inventory);
  static Layer AskForLayer(const ModelConfig& config, int64_t layer, Inventory* inventory);
  void Embed(const EncodeStep& step, const Activations& h);
  void Attend(const Layer& layer, const EncodeStep& step, const Activations& h);
  void FeedForward(const Layer& layer, const Activations& h);
  void Normalize(const Norm& norm, const Activations& h);
  void Pool(EncodeStep* step, const Activations& h);

  const Weight *words_, *token_types_, *positions_;
  Norm embedding_norm_;
  std::vector<Layer> layers_;

  // Workspace. R = limits.max_rows, S = limits.max_sequences.
  const Activations* hidden_;           // [R, D]
  const Activations *q_, *k_, *v_;      // [R, D]
  const Activations* attended_;         // [R, D]
  const Activations* inner_;            // [R, F]
  const Activations* pooled_;           // [S, D]
  std::vector<int32_t>* position_ids_;  // [R]
  std::vector<int32_t>* type_ids_;      // [R], all zero
};

}  // namespace nibble
