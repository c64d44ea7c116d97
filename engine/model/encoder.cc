// A BERT step as its equations, one sentence each.
#include "engine/model/encoder.h"

#include <array>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/status.h"

namespace nibble {
namespace {

MatMulPart Part(const Linear& linear, const Activations& out, bool accumulate = false) {
  return {linear.weight, *linear.bias, out, accumulate};
}

}  // namespace

absl::Status Encoder::Check(const ModelConfig& config) {
  if (config.activation == Activation::kSilu) {
    return Error(absl::StatusCode::kUnimplemented, "UNSUPPORTED_MODEL",
                 "architecture bert: hidden_act is neither gelu nor gelu_new");
  }
  if (config.type_vocab < 1) {
    return Error(absl::StatusCode::kFailedPrecondition, "CONFIG_MISMATCH",
                 absl::StrCat("config of architecture bert: type_vocab_size is ", config.type_vocab,
                              ", it must be at least 1"));
  }
  if (config.num_heads * config.head_dim != config.hidden) {
    return Error(absl::StatusCode::kFailedPrecondition, "CONFIG_MISMATCH",
                 absl::StrCat("config of architecture bert: ", config.num_heads, " heads of ",
                              config.head_dim, " are not hidden_size ", config.hidden));
  }
  return absl::OkStatus();
}

Encoder::Norm Encoder::AskForNorm(const std::string& prefix, int64_t length, Inventory* inventory) {
  return {inventory->Vector(prefix + ".weight", length),
          inventory->Vector(prefix + ".bias", length)};
}

Encoder::Layer Encoder::AskForLayer(const ModelConfig& config, int64_t layer,
                                    Inventory* inventory) {
  const std::string at = absl::StrCat("encoder.layer.", layer, ".");
  const int64_t hidden = config.hidden, ffn = config.ffn;
  return {
      .q = inventory->Projection(at + "attention.self.query", hidden, hidden, true),
      .k = inventory->Projection(at + "attention.self.key", hidden, hidden, true),
      .v = inventory->Projection(at + "attention.self.value", hidden, hidden, true),
      .o = inventory->Projection(at + "attention.output.dense", hidden, hidden, true),
      .attention_norm = AskForNorm(at + "attention.output.LayerNorm", hidden, inventory),
      .up = inventory->Projection(at + "intermediate.dense", ffn, hidden, true),
      .down = inventory->Projection(at + "output.dense", hidden, ffn, true),
      .mlp_norm = AskForNorm(at + "output.LayerNorm", hidden, inventory),
  };
}

Encoder::Encoder(const ModelConfig& config, const StepLimits& limits, Inventory* inventory,
                 Workspace* workspace) {
  const int64_t hidden = config.hidden;
  words_ = inventory->TokenTable("embeddings.word_embeddings.weight", config.vocab, hidden);
  token_types_ =
      inventory->Table("embeddings.token_type_embeddings.weight", config.type_vocab, hidden);
  positions_ =
      inventory->Table("embeddings.position_embeddings.weight", config.max_positions, hidden);
  embedding_norm_ = AskForNorm("embeddings.LayerNorm", hidden, inventory);
  for (int64_t layer = 0; layer < config.num_layers && inventory->status().ok(); ++layer) {
    layers_.push_back(AskForLayer(config, layer, inventory));
  }

  const int64_t rows = limits.max_rows;
  hidden_ = workspace->Rows(rows, hidden);
  pooled_ = workspace->Rows(limits.max_sequences, hidden);
  const int64_t shared = workspace->Mark();
  q_ = workspace->Rows(rows, hidden);
  k_ = workspace->Rows(rows, hidden);
  v_ = workspace->Rows(rows, hidden);
  attended_ = workspace->Rows(rows, hidden);
  workspace->Rewind(shared);
  inner_ = workspace->Rows(rows, config.ffn);
  position_ids_ = workspace->Ids(rows);
  type_ids_ = workspace->Ids(rows);
}

absl::Status Encoder::Decode(DecodeStep* /*step*/) {
  return Error(absl::StatusCode::kFailedPrecondition, "MODEL_CANNOT_GENERATE",
               absl::StrCat(name_, " embeds texts; it cannot generate"));
}

absl::Status Encoder::Encode(EncodeStep* step) {
  BeginStep(step->tokens.size(), step->sequences.size());
  const Activations h = hidden_->Rows(0, static_cast<int64_t>(step->tokens.size()));
  Embed(*step, h);
  for (const Layer& layer : layers_) {
    Attend(layer, *step, h);
    FeedForward(layer, h);
  }
  Pool(step, h);
  return backend_->Finish();
}

// h = LayerNorm(Word[token] + Type[0] + Position[p]), p counted from 0 in every sequence.
void Encoder::Embed(const EncodeStep& step, const Activations& h) {
  for (const SequenceRows& sequence : step.sequences) {
    const auto begin = position_ids_->begin() + sequence.first_row;
    std::iota(begin, begin + sequence.num_rows, 0);
  }
  const auto ids = [&](const std::vector<int32_t>& all) {
    return std::span<const int32_t>(all).first(step.tokens.size());
  };
  backend_->Embedding(*words_, step.tokens, /*accumulate=*/false, h);
  backend_->Embedding(*token_types_, ids(*type_ids_), /*accumulate=*/true, h);
  backend_->Embedding(*positions_, ids(*position_ids_), /*accumulate=*/true, h);
  Normalize(embedding_norm_, h);
}

// h = LayerNorm(h + O · Attention(Q·h, K·h, V·h)), every row seeing its whole sequence.
void Encoder::Attend(const Layer& layer, const EncodeStep& step, const Activations& h) {
  const Activations q = q_->Rows(0, h.rows), k = k_->Rows(0, h.rows), v = v_->Rows(0, h.rows);
  const Activations attended = attended_->Rows(0, h.rows);
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));

  MatMul(h, std::array{Part(layer.q, q), Part(layer.k, k), Part(layer.v, v)});
  backend_->EncoderAttention(q, k, v, step.sequences, config_.num_heads, scale, attended);
  MatMul(attended, std::array{Part(layer.o, h, /*accumulate=*/true)});
  Normalize(layer.attention_norm, h);
}

// h = LayerNorm(h + Down · gelu(Up·h)).
void Encoder::FeedForward(const Layer& layer, const Activations& h) {
  const Activations inner = inner_->Rows(0, h.rows);
  MatMul(h, std::array{Part(layer.up, inner)});
  backend_->Gelu(inner, config_.activation == Activation::kGeluTanh);
  MatMul(inner, std::array{Part(layer.down, h, /*accumulate=*/true)});
  Normalize(layer.mlp_norm, h);
}

void Encoder::Normalize(const Norm& norm, const Activations& h) {
  backend_->LayerNorm(h, {}, *norm.weight, *norm.bias, config_.norm_eps, h);
}

// One vector per sequence: pooled, cut to `dimensions`, divided by its length if asked.
void Encoder::Pool(EncodeStep* step, const Activations& h) {
  const auto sequences = static_cast<int64_t>(step->sequences.size());
  const int64_t width = step->dimensions == 0 ? config_.hidden : step->dimensions;
  const Activations out = {pooled_->data, sequences, width, width};
  backend_->Pool(h, step->sequences, step->pooling, step->normalize, out);
  step->pooled.resize(static_cast<size_t>(sequences * width));
  backend_->CopyToHost(step->pooled.data(), out.data,
                       sequences * width * static_cast<int64_t>(sizeof(float)));
}

}  // namespace nibble
