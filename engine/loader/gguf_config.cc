// See gguf_config.h.
#include "engine/loader/gguf_config.h"

#include <cmath>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"
#include "engine/status.h"

namespace nibble {
namespace {

const TensorRef* FindTensor(const GgufFile& file, std::string_view name) {
  for (const TensorRef& tensor : file.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

void Unsupported(Fields& fields, std::string_view what) {
  fields.Fail(UnsupportedModel(fields.where(), what));
}

void RefuseOthers(Fields& fields) {
  const std::string architecture = fields.Text("general.architecture");
  if (architecture != "llama") {
    Unsupported(fields, absl::StrCat("architecture ", Quoted(architecture),
                                     " is not supported; supported: llama"));
  }
  const std::string type = fields.TextOr("general.type", "model");
  if (type != "model") {
    Unsupported(fields, absl::StrCat("a GGUF of type ", Quoted(type),
                                     " is not supported; supported: model"));
  }
  if (fields.IntOr("split.count", 1, 0, 65535) > 1) {
    Unsupported(fields, "a GGUF in several files is not supported; join them with gguf-split");
  }
  if (fields.IntOr("llama.expert_count", 0, 0, 65535) > 0) {
    Unsupported(fields, "a mixture of experts is not supported");
  }
  if (fields.Has("llama.attention.sliding_window")) {
    Unsupported(fields, "llama.attention.sliding_window is not supported");
  }
}

void ReadShape(Fields& fields, ModelConfig& config) {
  config.hidden = fields.Int("llama.embedding_length", 1, kMaxWidth);
  config.num_layers = fields.Int("llama.block_count", 1, kMaxLayers);
  config.ffn = fields.Int("llama.feed_forward_length", 1, kMaxWidth);
  config.num_heads = fields.Int("llama.attention.head_count", 1, kMaxHeads);
  config.num_kv_heads =
      fields.IntOr("llama.attention.head_count_kv", config.num_heads, 1, kMaxHeads);
  config.max_positions = fields.Int("llama.context_length", 1, kMaxPositions);
  config.norm_eps =
      static_cast<float>(fields.Number("llama.attention.layer_norm_rms_epsilon", kMinReal, 1));
  config.activation = Activation::kSilu;
}

void ReadHeadDim(Fields& fields, ModelConfig& config) {
  const bool divides = config.hidden % config.num_heads == 0;
  if (!divides && !fields.Has("llama.attention.key_length")) {
    fields.Fail(
        InconsistentModel(fields.where(), absl::StrCat("llama.embedding_length ", config.hidden,
                                                       " is no multiple of "
                                                       "llama.attention.head_count ",
                                                       config.num_heads)));
  }
  const int64_t usual = config.hidden / config.num_heads;
  config.head_dim = fields.IntOr("llama.attention.key_length", usual, 1, kMaxWidth);
  for (const char* key : {"llama.attention.value_length", "llama.rope.dimension_count"}) {
    const int64_t other = fields.IntOr(key, config.head_dim, 1, kMaxWidth);
    if (other == config.head_dim) continue;
    Unsupported(fields,
                absl::StrCat(key, " ", other, " is not supported with heads of ", config.head_dim));
  }
}

void ReadRope(Fields& fields, RopeConfig& rope) {
  rope.theta =
      static_cast<float>(fields.NumberOr("llama.rope.freq_base", 10000, kMinReal, kMaxReal));
  std::string type = fields.TextOr("llama.rope.scaling.type", "none");
  // Files from before the type had a key of its own.
  double factor = fields.NumberOr("llama.rope.scale_linear", 1, kMinReal, kMaxReal);
  if (type == "none" && factor != 1) type = "linear";
  factor = fields.NumberOr("llama.rope.scaling.factor", factor, 0, kMaxReal);
  if (type == "none") return;
  if (type != "linear") {
    return Unsupported(fields, absl::StrCat("RoPE type ", Quoted(type),
                                            " is not supported; supported: none, linear, and "
                                            "rope_freqs.weight"));
  }
  rope.type = factor > 0 ? RopeType::kLinear : RopeType::kDefault;  // 0 is unset here
  rope.factor = factor > 0 ? static_cast<float>(factor) : 1;
}

// Llama 3's frequency scaling comes as a tensor of divisors.
absl::Status ReadRopeDivisors(const GgufFile& file, ModelConfig& config) {
  const TensorRef* tensor = FindTensor(file, "rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  const std::vector<int64_t> wanted = {config.head_dim / 2};
  if (tensor->shape != wanted) {
    return InconsistentModel(
        file.name, absl::StrCat("tensor \"rope_freqs.weight\" has shape ", ShapeText(tensor->shape),
                                ", heads of ", config.head_dim, " want ", ShapeText(wanted)));
  }
  if (BlockValues(tensor->type) != 1) {
    return UnsupportedModel(file.name, absl::StrCat("tensor \"rope_freqs.weight\" has type ",
                                                    Name(tensor->type), "; supported: F32"));
  }
  std::vector<float>& divisors = config.rope.freq_divisors;
  divisors.resize(static_cast<size_t>(wanted[0]));
  ReadRows(*tensor, 0, wanted[0], divisors);
  for (const float divisor : divisors) {
    if (std::isfinite(divisor) && divisor > 0) continue;
    return CorruptFile(file.name, absl::StrCat("tensor \"rope_freqs.weight\" contains ", divisor,
                                               ", wanted positive numbers"));
  }
  return absl::OkStatus();
}

DType MatrixType(TensorType type) {
  if (type == TensorType::kF16) return DType::kF16;
  return type == TensorType::kBF16 ? DType::kBF16 : DType::kF32;
}

absl::Status ReadFromTensors(const GgufFile& file, ModelConfig& config) {
  const TensorRef* embedding = FindTensor(file, "token_embd.weight");
  if (embedding == nullptr) {
    return InconsistentModel(file.name, "tensor \"token_embd.weight\" is missing");
  }
  config.vocab = embedding->shape[0];
  Fields fields(file.name, file.fields);
  const int64_t vocab = fields.IntOr("llama.vocab_size", config.vocab, 1, kMaxVocab);
  if (!fields.status().ok()) return fields.status();
  if (vocab != config.vocab || vocab > kMaxVocab) {
    return InconsistentModel(
        file.name, absl::StrCat("tensor \"token_embd.weight\" has shape ",
                                ShapeText(embedding->shape), ", llama.vocab_size is ", vocab));
  }
  config.tied_head = FindTensor(file, "output.weight") == nullptr;
  config.attention_bias = FindTensor(file, "blk.0.attn_q.bias") != nullptr;
  config.mlp_bias = FindTensor(file, "blk.0.ffn_gate.bias") != nullptr;
  const TensorRef* matrix = FindTensor(file, "blk.0.attn_q.weight");
  config.dtype = matrix == nullptr ? DType::kF32 : MatrixType(matrix->type);
  return ReadRopeDivisors(file, config);
}

struct NamePair {
  std::string_view gguf;
  std::string_view hugging_face;
};
constexpr NamePair kModelNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
// Of one layer, without .weight or .bias.
constexpr NamePair kLayerNames[] = {
    {"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},   {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"},
    {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

// "blk.7.attn_q.bias": layer "7", part "attn_q", kind ".bias".
std::string TranslateLayerName(std::string_view name) {
  const size_t layer_end = name.find('.', 4);
  const size_t part_end = name.rfind('.');
  if (layer_end == std::string_view::npos || part_end <= layer_end) return Str(name);
  const std::string_view part = name.substr(layer_end + 1, part_end - layer_end - 1);
  for (const NamePair& pair : kLayerNames) {
    if (pair.gguf != part) continue;
    return absl::StrCat("model.layers.", Str(name.substr(4, layer_end - 4)), ".",
                        Str(pair.hugging_face), Str(name.substr(part_end)));
  }
  return Str(name);
}

std::string TranslateName(std::string_view name) {
  for (const NamePair& pair : kModelNames) {
    if (pair.gguf == name) return Str(pair.hugging_face);
  }
  return name.starts_with("blk.") ? TranslateLayerName(name) : Str(name);
}

bool IsPermuted(std::string_view name) {
  return name.find(".self_attn.q_proj.") != std::string_view::npos ||
         name.find(".self_attn.k_proj.") != std::string_view::npos;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file) {
  Fields fields(file.name, file.fields);
  RefuseOthers(fields);
  if (!fields.status().ok()) return fields.status();
  ModelConfig config;
  config.architecture = Architecture::kLlama;
  config.architecture_name = "llama";
  ReadShape(fields, config);
  ReadHeadDim(fields, config);
  ReadRope(fields, config.rope);
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = CheckConfig(file.name, config); !status.ok()) return status;
  if (absl::Status status = ReadFromTensors(file, config); !status.ok()) return status;
  return config;
}

std::vector<TensorRef> TranslateTensors(const GgufFile& file, const ModelConfig& config) {
  std::vector<TensorRef> tensors;
  for (const TensorRef& tensor : file.tensors) {
    if (tensor.name == "rope_freqs.weight") continue;  // already in config.rope
    TensorRef& out = tensors.emplace_back(tensor);
    out.name = TranslateName(tensor.name);
    if (IsPermuted(out.name)) out.permuted_head_rows = config.head_dim;
  }
  return tensors;
}

}  // namespace nibble
