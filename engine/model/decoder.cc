// A Llama step as its equations, one sentence each.
#include "engine/model/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/model/rope.h"
#include "engine/status.h"

namespace nibble {
namespace {

absl::Status Mismatch(const ModelConfig& config, const std::string& what) {
  return Error(absl::StatusCode::kFailedPrecondition, "CONFIG_MISMATCH",
               absl::StrCat("config of architecture ", config.architecture_name, ": ", what));
}

MatMulPart Part(const Linear& linear, const Activations& out) {
  return {linear.weight, linear.bias == nullptr ? VectorView{} : *linear.bias, out, false};
}

MatMulPart AddTo(const Linear& linear, const Activations& out) {
  MatMulPart part = Part(linear, out);
  part.accumulate = true;
  return part;
}

}  // namespace

absl::Status Decoder::Check(const ModelConfig& config) {
  if (config.activation != Activation::kSilu) {
    return Error(absl::StatusCode::kUnimplemented, "UNSUPPORTED_MODEL",
                 "architecture llama: hidden_act is not silu");
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    return Mismatch(config, absl::StrCat(config.num_heads, " heads cannot share ",
                                         config.num_kv_heads, " key-value heads"));
  }
  if (config.head_dim % 2 != 0) {
    return Mismatch(config, absl::StrCat("head_dim ", config.head_dim, " is not even"));
  }
  const auto divisors = static_cast<int64_t>(config.rope.freq_divisors.size());
  if (divisors != 0 && divisors != config.head_dim / 2) {
    return Mismatch(config, absl::StrCat("rope_freqs has ", divisors, " values, head_dim / 2 is ",
                                         config.head_dim / 2));
  }
  return absl::OkStatus();
}

Decoder::Layer Decoder::AskForLayer(const ModelConfig& config, int64_t layer,
                                    Inventory* inventory) {
  const std::string at = absl::StrCat("model.layers.", layer, ".");
  const int64_t hidden = config.hidden;
  const int64_t q_width = config.num_heads * config.head_dim;
  const int64_t kv_width = config.num_kv_heads * config.head_dim;
  const bool bias = config.attention_bias, mlp_bias = config.mlp_bias;
  return {
      .attention_norm = inventory->Vector(at + "input_layernorm.weight", hidden),
      .q = inventory->Projection(at + "self_attn.q_proj", q_width, hidden, bias),
      .k = inventory->Projection(at + "self_attn.k_proj", kv_width, hidden, bias),
      .v = inventory->Projection(at + "self_attn.v_proj", kv_width, hidden, bias),
      .o = inventory->Projection(at + "self_attn.o_proj", hidden, q_width, bias),
      .mlp_norm = inventory->Vector(at + "post_attention_layernorm.weight", hidden),
      .gate = inventory->Projection(at + "mlp.gate_proj", config.ffn, hidden, mlp_bias),
      .up = inventory->Projection(at + "mlp.up_proj", config.ffn, hidden, mlp_bias),
      .down = inventory->Projection(at + "mlp.down_proj", hidden, config.ffn, mlp_bias),
  };
}

Decoder::Decoder(const ModelConfig& config, const StepLimits& limits, Inventory* inventory,
                 Workspace* workspace)
    : inv_freq_(InverseFrequencies(config.rope, config.head_dim)),
      plans_(static_cast<size_t>(limits.max_logit_rows)) {
  embedding_ = inventory->TokenTable("model.embed_tokens.weight", config.vocab, config.hidden);
  for (int64_t layer = 0; layer < config.num_layers && inventory->status().ok(); ++layer) {
    layers_.push_back(AskForLayer(config, layer, inventory));
  }
  final_norm_ = inventory->Vector("model.norm.weight", config.hidden);
  head_ = config.tied_head ? embedding_
                           : inventory->Head("lm_head.weight", config.vocab, config.hidden);

  const int64_t rows = limits.max_rows;
  hidden_ = workspace->Rows(rows, config.hidden);
  const int64_t shared = workspace->Mark();
  normed_ = workspace->Rows(rows, config.hidden);
  const int64_t after_norm = workspace->Mark();
  q_ = workspace->Rows(rows, config.num_heads * config.head_dim);
  k_ = workspace->Rows(rows, config.num_kv_heads * config.head_dim);
  v_ = workspace->Rows(rows, config.num_kv_heads * config.head_dim);
  attended_ = workspace->Rows(rows, config.num_heads * config.head_dim);
  workspace->Rewind(after_norm);
  gate_ = workspace->Rows(rows, config.ffn);
  up_ = workspace->Rows(rows, config.ffn);
  workspace->Rewind(shared);
  last_ = workspace->Rows(limits.max_logit_rows, config.hidden);
  logits_ = workspace->Rows(limits.max_logit_rows, config.vocab);
  rows_ = workspace->Ids(limits.max_logit_rows);
}

absl::Status Decoder::Encode(EncodeStep* /*step*/) {
  return Error(absl::StatusCode::kFailedPrecondition, "MODEL_CANNOT_EMBED",
               absl::StrCat(name_, " generates text; it has no pooling to embed with"));
}

absl::Status Decoder::Decode(DecodeStep* step) {
  BeginStep(step->tokens.size(), step->sequences.size());
  const Activations h = hidden_->Rows(0, static_cast<int64_t>(step->tokens.size()));
  backend_->Embedding(*embedding_, step->tokens, /*accumulate=*/false, h);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    Attend(layer, *step, h);
    FeedForward(layer, h);
  }
  SampleRows(step, h);
  return backend_->Finish();
}

// h += O · Attention(Q·x, K·x, V·x), x = RMSNorm(h).
void Decoder::Attend(int64_t layer, const DecodeStep& step, const Activations& h) {
  const Layer& weights = layers_[static_cast<size_t>(layer)];
  const Activations x = normed_->Rows(0, h.rows), attended = attended_->Rows(0, h.rows);
  const Activations q = q_->Rows(0, h.rows), k = k_->Rows(0, h.rows), v = v_->Rows(0, h.rows);
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));

  backend_->RmsNorm(h, *weights.attention_norm, config_.norm_eps, x);
  MatMul(x, std::array{Part(weights.q, q), Part(weights.k, k), Part(weights.v, v)});
  backend_->RopeAndStore(q, k, v, inv_freq_, step.sequences, kv_, layer);
  backend_->PagedAttention(q, step.sequences, kv_, layer, scale, attended);
  MatMul(attended, std::array{AddTo(weights.o, h)});
}

// h += Down · (silu(Gate·x) ⊙ Up·x), x = RMSNorm(h).
void Decoder::FeedForward(int64_t layer, const Activations& h) {
  const Layer& weights = layers_[static_cast<size_t>(layer)];
  const Activations x = normed_->Rows(0, h.rows);
  const Activations gate = gate_->Rows(0, h.rows), up = up_->Rows(0, h.rows);

  backend_->RmsNorm(h, *weights.mlp_norm, config_.norm_eps, x);
  MatMul(x, std::array{Part(weights.gate, gate), Part(weights.up, up)});
  backend_->SiluMul(gate, up, gate);
  MatMul(gate, std::array{AddTo(weights.down, h)});
}

void Decoder::SampleRows(DecodeStep* step, const Activations& h) {
  const size_t plans = step->plans.size();
  if (step->sampled.size() < plans) step->sampled.resize(plans);
  for (size_t first = 0; first < plans; first += plans_.size()) {
    SampleSlice(step, first, std::min(plans_.size(), plans - first), h);
  }
}

// token ~ softmax(Head · RMSNorm(h)), for the rows that plans [first, first + count) name; a row
// that several plans share is computed once.
void Decoder::SampleSlice(DecodeStep* step, size_t first, size_t count, const Activations& h) {
  size_t rows = 0;
  for (size_t i = 0; i < count; ++i) {
    plans_[i] = step->plans[first + i];
    if (rows == 0 || (*rows_)[rows - 1] != plans_[i].row) (*rows_)[rows++] = plans_[i].row;
    plans_[i].row = static_cast<int32_t>(rows - 1);
  }
  const Activations last = last_->Rows(0, static_cast<int64_t>(rows));
  const Activations logits = logits_->Rows(0, static_cast<int64_t>(rows));

  backend_->GatherRows(h, std::span<const int32_t>(*rows_).first(rows), last);
  backend_->RmsNorm(last, *final_norm_, config_.norm_eps, last);
  MatMul(last, std::array{MatMulPart{head_, {}, logits, false}});
  backend_->Sample(logits, std::span<const SamplingPlan>(plans_).first(count),
                   std::span<SampledToken>(step->sampled).subspan(first, count));
}

}  // namespace nibble
