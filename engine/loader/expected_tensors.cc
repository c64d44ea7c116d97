// See expected_tensors.h.
#include "engine/loader/expected_tensors.h"

#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/status.h"

namespace nibble {
namespace {

using Expected = std::vector<ExpectedTensor>;

// A matrix [n, k] and perhaps its bias [n].
void AddLinear(Expected& out, const std::string& prefix, int64_t n, int64_t k, bool bias) {
  out.push_back({prefix + ".weight", {n, k}, true});
  if (bias) out.push_back({prefix + ".bias", {n}});
}

void AddLayerNorm(Expected& out, const std::string& prefix, int64_t width) {
  out.push_back({prefix + ".weight", {width}});
  out.push_back({prefix + ".bias", {width}});
}

void AddLlamaLayer(Expected& out, const std::string& layer, const ModelConfig& config) {
  const int64_t q = config.num_heads * config.head_dim;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  const bool bias = config.attention_bias;
  out.push_back({layer + "input_layernorm.weight", {config.hidden}});
  AddLinear(out, layer + "self_attn.q_proj", q, config.hidden, bias);
  AddLinear(out, layer + "self_attn.k_proj", kv, config.hidden, bias);
  AddLinear(out, layer + "self_attn.v_proj", kv, config.hidden, bias);
  AddLinear(out, layer + "self_attn.o_proj", config.hidden, q, bias);
  out.push_back({layer + "post_attention_layernorm.weight", {config.hidden}});
  AddLinear(out, layer + "mlp.gate_proj", config.ffn, config.hidden, config.mlp_bias);
  AddLinear(out, layer + "mlp.up_proj", config.ffn, config.hidden, config.mlp_bias);
  AddLinear(out, layer + "mlp.down_proj", config.hidden, config.ffn, config.mlp_bias);
}

Expected LlamaTensors(const ModelConfig& config) {
  Expected out = {{"model.embed_tokens.weight", {config.vocab, config.hidden}}};
  for (int64_t i = 0; i < config.num_layers; ++i) {
    AddLlamaLayer(out, absl::StrCat("model.layers.", i, "."), config);
  }
  out.push_back({"model.norm.weight", {config.hidden}});
  if (!config.tied_head) out.push_back({"lm_head.weight", {config.vocab, config.hidden}, true});
  return out;
}

void AddBertLayer(Expected& out, const std::string& layer, const ModelConfig& config) {
  for (const char* part : {"query", "key", "value"}) {
    AddLinear(out, layer + "attention.self." + part, config.hidden, config.hidden, true);
  }
  AddLinear(out, layer + "attention.output.dense", config.hidden, config.hidden, true);
  AddLayerNorm(out, layer + "attention.output.LayerNorm", config.hidden);
  AddLinear(out, layer + "intermediate.dense", config.ffn, config.hidden, true);
  AddLinear(out, layer + "output.dense", config.hidden, config.ffn, true);
  AddLayerNorm(out, layer + "output.LayerNorm", config.hidden);
}

Expected BertTensors(const ModelConfig& config) {
  Expected out = {
      {"embeddings.word_embeddings.weight", {config.vocab, config.hidden}},
      {"embeddings.position_embeddings.weight", {config.max_positions, config.hidden}},
      {"embeddings.token_type_embeddings.weight", {config.type_vocab, config.hidden}},
  };
  AddLayerNorm(out, "embeddings.LayerNorm", config.hidden);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    AddBertLayer(out, absl::StrCat("encoder.layer.", i, "."), config);
  }
  return out;
}

// "model.safetensors: tensor "x"", as every message here begins.
std::string Place(const TensorRef& tensor) {
  return absl::StrCat(tensor.file, ": tensor ", Quoted(tensor.name));
}

absl::Status CheckOne(const Checkpoint& checkpoint, const ExpectedTensor& expected) {
  const TensorRef* tensor = checkpoint.Find(expected.name);
  if (tensor == nullptr) {
    return Error(absl::StatusCode::kFailedPrecondition, "MISSING_TENSOR",
                 absl::StrCat(BaseName(checkpoint.path()), ": tensor ", Quoted(expected.name),
                              " is missing, ", checkpoint.config_source(), " wants it with shape ",
                              ShapeText(expected.shape)));
  }
  if (IsBitsAndBytes(tensor->type) && !expected.multiplied) {
    return UnsupportedModel(
        tensor->file,
        absl::StrCat("tensor ", Quoted(tensor->name), " has type ", Name(tensor->type),
                     "; only matrices of linear layers may be quantized, this one has F32, F16 or "
                     "BF16"));
  }
  if (tensor->shape != expected.shape) {
    return Error(absl::StatusCode::kFailedPrecondition, "SHAPE_MISMATCH",
                 absl::StrCat(Place(*tensor), " has shape ", ShapeText(tensor->shape), ", ",
                              checkpoint.config_source(), " says ", ShapeText(expected.shape)));
  }
  if (expected.shape.size() == 1 && BlockValues(tensor->type) > 1) {
    return UnsupportedModel(
        tensor->file, absl::StrCat("tensor ", Quoted(tensor->name), " has type ",
                                   Name(tensor->type), "; supported for vectors: F32, F16, BF16"));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  return config.architecture == Architecture::kLlama ? LlamaTensors(config) : BertTensors(config);
}

absl::Status CheckTensors(const Checkpoint& checkpoint) {
  const Expected expected = ExpectedTensors(checkpoint.config());
  std::set<std::string_view> names;
  for (const ExpectedTensor& one : expected) {
    if (absl::Status status = CheckOne(checkpoint, one); !status.ok()) return status;
    names.insert(one.name);
  }
  for (const TensorRef& tensor : checkpoint.tensors()) {
    if (names.contains(tensor.name)) continue;
    return Error(
        absl::StatusCode::kFailedPrecondition, "UNEXPECTED_TENSOR",
        absl::StrCat(Place(tensor), " is no part of ", checkpoint.config().architecture_name,
                     " as ", checkpoint.config_source(), " describes it"));
  }
  return absl::OkStatus();
}

}  // namespace nibble
