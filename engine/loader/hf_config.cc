// See hf_config.h. Defaults for absent fields are those of transformers' own config classes.
#include "engine/loader/hf_config.h"

#include <array>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"
#include "engine/loader/hf_quantization.h"
#include "engine/loader/hf_rope.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr char kFile[] = "config.json";

struct ArchitectureName {
  std::string_view class_name;
  std::string_view model_type;  // of files without "architectures"
  Architecture architecture;
};
constexpr std::array<ArchitectureName, 4> kArchitectures = {{
    {"LlamaForCausalLM", "llama", Architecture::kLlama},
    {"BertModel", "bert", Architecture::kBert},
    {"BertForMaskedLM", "", Architecture::kBert},
    {"BertForPreTraining", "", Architecture::kBert},
}};

void Unsupported(Fields& fields, std::string_view what) {
  fields.Fail(UnsupportedModel(kFile, what));
}

// The first of "architectures", or what "model_type" stands for.
std::string ReadClassName(Fields& fields) {
  const Value::Array* classes = fields.ArrayOrNull("architectures");
  if (classes != nullptr && !classes->empty()) {
    const std::string* name = classes->front().AsText();
    if (name == nullptr) fields.Fail(CorruptFile(kFile, "\"architectures\" is not of strings"));
    return name != nullptr ? *name : std::string();
  }
  const std::string model_type = fields.TextOr("model_type", "");
  if (model_type.empty()) {
    fields.Fail(
        NotAModel(kFile, "names no model: \"architectures\" and \"model_type\" are absent"));
  }
  for (const ArchitectureName& row : kArchitectures) {
    if (row.model_type == model_type) return Str(row.class_name);
  }
  return model_type;
}

void ReadArchitecture(Fields& fields, ModelConfig& config) {
  config.architecture_name = ReadClassName(fields);
  for (const ArchitectureName& row : kArchitectures) {
    if (row.class_name != config.architecture_name) continue;
    config.architecture = row.architecture;
    return;
  }
  Unsupported(fields, absl::StrCat("architecture ", Quoted(config.architecture_name),
                                   " is not supported; supported: LlamaForCausalLM, BertModel, "
                                   "BertForMaskedLM, BertForPreTraining"));
}

void ReadShape(Fields& fields, ModelConfig& config) {
  config.hidden = fields.Int("hidden_size", 1, kMaxWidth);
  config.num_layers = fields.Int("num_hidden_layers", 1, kMaxLayers);
  config.num_heads = fields.Int("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = config.num_heads;
  config.ffn = fields.Int("intermediate_size", 1, kMaxWidth);
  config.vocab = fields.Int("vocab_size", 1, kMaxVocab);
}

// head_dim where the file does not name one.
void DeriveHeadDim(Fields& fields, ModelConfig& config) {
  if (fields.status().ok() && config.hidden % config.num_heads != 0) {
    fields.Fail(InconsistentModel(
        kFile, absl::StrCat("hidden_size ", config.hidden,
                            " is no multiple of num_attention_heads ", config.num_heads)));
  }
  config.head_dim = config.hidden / config.num_heads;
}

void ReadLlama(Fields& fields, ModelConfig& config) {
  config.num_kv_heads = fields.IntOr("num_key_value_heads", config.num_heads, 1, kMaxHeads);
  if (fields.Has("head_dim")) {
    config.head_dim = fields.Int("head_dim", 1, kMaxWidth);
  } else {
    DeriveHeadDim(fields, config);
  }
  config.max_positions = fields.IntOr("max_position_embeddings", 2048, 1, kMaxPositions);
  config.norm_eps = static_cast<float>(fields.NumberOr("rms_norm_eps", 1e-6, kMinReal, 1));
  config.tied_head = fields.BoolOr("tie_word_embeddings", false);
  config.attention_bias = fields.BoolOr("attention_bias", false);
  config.mlp_bias = fields.BoolOr("mlp_bias", false);
  config.activation = Activation::kSilu;
  const std::string activation = fields.TextOr("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    Unsupported(fields, absl::StrCat("hidden_act ", Quoted(activation),
                                     " is not supported for Llama; supported: silu"));
  }
  ReadHfRope(fields, config.rope);
}

void ReadBert(Fields& fields, ModelConfig& config) {
  DeriveHeadDim(fields, config);
  config.max_positions = fields.IntOr("max_position_embeddings", 512, 1, kMaxPositions);
  config.type_vocab = fields.IntOr("type_vocab_size", 2, 1, kMaxWidth);
  config.norm_eps = static_cast<float>(fields.NumberOr("layer_norm_eps", 1e-12, kMinReal, 1));
  config.tied_head = true;
  config.attention_bias = true;
  config.mlp_bias = true;
  const std::string activation = fields.TextOr("hidden_act", "gelu");
  if (activation == "gelu") {
    config.activation = Activation::kGelu;
  } else if (activation == "gelu_new" || activation == "gelu_pytorch_tanh") {
    config.activation = Activation::kGeluTanh;
  } else {
    Unsupported(fields, absl::StrCat("hidden_act ", Quoted(activation),
                                     " is not supported for BERT; supported: gelu, gelu_new, "
                                     "gelu_pytorch_tanh"));
  }
  const std::string positions = fields.TextOr("position_embedding_type", "absolute");
  if (positions != "absolute") {
    Unsupported(fields, absl::StrCat("position_embedding_type ", Quoted(positions),
                                     " is not supported; supported: absolute"));
  }
  if (fields.BoolOr("is_decoder", false)) Unsupported(fields, "BERT as a decoder is not supported");
}

// eos_token_id: an integer, a list of them, or nothing.
void ReadEosIds(Fields& fields, const Value& object, ModelConfig& config) {
  const Value* ids = object.Find("eos_token_id");
  if (ids == nullptr || !fields.status().ok()) return;
  const Value::Array one = {*ids};
  for (const Value& id : ids->AsArray() != nullptr ? *ids->AsArray() : one) {
    if (id.AsInt() == nullptr) {
      return fields.Fail(CorruptFile(fields.where(),
                                     absl::StrCat("\"eos_token_id\" is or contains ", id.Describe(),
                                                  ", wanted an integer or a list of integers")));
    }
    fields.Fail(AddEosId(fields.where(), *id.AsInt(), config));
  }
}

void ReadOptional(Fields& fields, std::string_view key, double min, double max,
                  std::optional<float>& out) {
  if (fields.Has(key)) out = static_cast<float>(fields.Number(key, min, max));
}

}  // namespace

absl::StatusOr<ModelConfig> ParseHfConfig(const Value& config) {
  Fields fields(kFile, config);
  ModelConfig out;
  ReadArchitecture(fields, out);
  out.quantization = ReadQuantizationConfig(fields);
  if (!fields.status().ok()) return fields.status();
  ReadShape(fields, out);
  out.architecture == Architecture::kLlama ? ReadLlama(fields, out) : ReadBert(fields, out);
  ReadEosIds(fields, config, out);
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = CheckConfig(kFile, out); !status.ok()) return status;
  return out;
}

absl::Status AddGenerationConfig(const Value& generation_config, ModelConfig& config) {
  Fields fields("generation_config.json", generation_config);
  GenerationDefaults& out = config.generation;
  out.do_sample = fields.BoolOr("do_sample", false);
  ReadOptional(fields, "temperature", 0, kMaxReal, out.temperature);
  if (fields.Has("top_k")) out.top_k = static_cast<int32_t>(fields.Int("top_k", 0, kMaxVocab));
  ReadOptional(fields, "top_p", kMinReal, 1, out.top_p);
  ReadOptional(fields, "min_p", 0, 1, out.min_p);
  ReadOptional(fields, "repetition_penalty", kMinReal, kMaxReal, out.repetition_penalty);
  ReadEosIds(fields, generation_config, config);
  return fields.status();
}

}  // namespace nibble
