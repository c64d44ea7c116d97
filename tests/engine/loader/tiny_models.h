// The smallest models that open: one layer, a few values each, whose pieces a test can leave out or
// replace.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace nibble::testing {

struct TinyTensor {
  std::string name;
  std::vector<int64_t> shape;
};

inline int64_t NumValues(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (const int64_t dimension : shape) product *= dimension;
  return product;
}

// 0, 1, 2 … in fp32.
inline std::string Ramp(const std::vector<int64_t>& shape) {
  std::vector<float> values;
  for (int64_t i = 0; i < NumValues(shape); ++i) values.push_back(static_cast<float>(i));
  return RawBytes(values);
}

// 2 heads, 1 KV head, ffn 12, vocabulary 10, 1 layer.
struct TinyGguf {
  std::set<std::string> without;                         // fields and tensors to leave out
  std::function<void(GgufWriter&)> more = [](auto&) {};  // what to add

  int64_t hidden = 8;

  std::string File() const {
    GgufWriter writer;
    const auto u32 = [&](const char* key, uint32_t value) {
      if (!without.contains(key)) writer.AddU32(key, value);
    };
    if (!without.contains("general.architecture")) {
      writer.AddText("general.architecture", "llama");
    }
    u32("llama.block_count", 1);
    u32("llama.context_length", 32);
    u32("llama.embedding_length", static_cast<uint32_t>(hidden));
    u32("llama.feed_forward_length", 12);
    u32("llama.attention.head_count", 2);
    u32("llama.attention.head_count_kv", 1);
    if (!without.contains("llama.attention.layer_norm_rms_epsilon")) {
      writer.AddF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    }
    more(writer);
    for (const TinyTensor& tensor : Tensors()) {
      if (!without.contains(tensor.name))
        writer.AddTensor(tensor.name, tensor.shape, 0, Ramp(tensor.shape));
    }
    return writer.File();
  }

  std::vector<TinyTensor> Tensors() const {
    const int64_t kv = hidden / 2;
    return {
        {"token_embd.weight", {10, hidden}},       {"blk.0.attn_norm.weight", {hidden}},
        {"blk.0.attn_q.weight", {hidden, hidden}}, {"blk.0.attn_k.weight", {kv, hidden}},
        {"blk.0.attn_v.weight", {kv, hidden}},     {"blk.0.attn_output.weight", {hidden, hidden}},
        {"blk.0.ffn_norm.weight", {hidden}},       {"blk.0.ffn_gate.weight", {12, hidden}},
        {"blk.0.ffn_up.weight", {12, hidden}},     {"blk.0.ffn_down.weight", {hidden, 12}},
        {"output_norm.weight", {hidden}}};
  }
  static void AddTokenizer(GgufWriter& writer) {
    writer.AddText("tokenizer.ggml.model", "gpt2");
    writer.AddText("tokenizer.ggml.pre", "smollm");
    writer.AddTexts("tokenizer.ggml.tokens", {"<u>", "<s>", "</s>", "a", "b", "ab"});
    writer.AddInts("tokenizer.ggml.token_type", {2, 3, 3, 1, 1, 1});
    writer.AddTexts("tokenizer.ggml.merges", {"a b"});
    writer.AddU32("tokenizer.ggml.bos_token_id", 1);
    writer.AddU32("tokenizer.ggml.eos_token_id", 2);
  }
};

// The same model as a Hugging Face directory.
inline const char kTinyLlamaConfig[] = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
  "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
  "num_key_value_heads": 1, "vocab_size": 10, "max_position_embeddings": 32,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "eos_token_id": 2})";

inline std::vector<TinyTensor> TinyLlamaTensors() {
  const std::string layer = "model.layers.0.";
  return {{"model.embed_tokens.weight", {10, 8}},
          {layer + "input_layernorm.weight", {8}},
          {layer + "self_attn.q_proj.weight", {8, 8}},
          {layer + "self_attn.k_proj.weight", {4, 8}},
          {layer + "self_attn.v_proj.weight", {4, 8}},
          {layer + "self_attn.o_proj.weight", {8, 8}},
          {layer + "post_attention_layernorm.weight", {8}},
          {layer + "mlp.gate_proj.weight", {12, 8}},
          {layer + "mlp.up_proj.weight", {12, 8}},
          {layer + "mlp.down_proj.weight", {8, 12}},
          {"model.norm.weight", {8}}};
}

inline const char kTinyBertConfig[] = R"({
  "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8, "intermediate_size": 12,
  "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10,
  "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12})";

inline std::vector<TinyTensor> TinyBertTensors() {
  std::vector<TinyTensor> out = {{"embeddings.word_embeddings.weight", {10, 8}},
                                 {"embeddings.position_embeddings.weight", {16, 8}},
                                 {"embeddings.token_type_embeddings.weight", {2, 8}}};
  const auto both = [&](const std::string& prefix, std::vector<int64_t> shape) {
    out.push_back({prefix + ".bias", {shape[0]}});
    out.push_back({prefix + ".weight", std::move(shape)});
  };
  const std::string layer = "encoder.layer.0.";
  both("embeddings.LayerNorm", {8});
  both(layer + "attention.self.query", {8, 8});
  both(layer + "attention.self.key", {8, 8});
  both(layer + "attention.self.value", {8, 8});
  both(layer + "attention.output.dense", {8, 8});
  both(layer + "attention.output.LayerNorm", {8});
  both(layer + "intermediate.dense", {12, 8});
  both(layer + "output.dense", {8, 12});
  both(layer + "output.LayerNorm", {8});
  return out;
}

inline std::string WeightsFile(const std::vector<TinyTensor>& tensors) {
  SafetensorsWriter writer;
  for (const TinyTensor& tensor : tensors) {
    writer.Add(tensor.name, "F32", tensor.shape, Ramp(tensor.shape));
  }
  return writer.File();
}

inline void WriteTinyLlama(const TempDir& dir) {
  dir.Write("config.json", kTinyLlamaConfig);
  dir.Write("model.safetensors", WeightsFile(TinyLlamaTensors()));
}
inline void WriteTinyBert(const TempDir& dir) {
  dir.Write("config.json", kTinyBertConfig);
  dir.Write("model.safetensors", WeightsFile(TinyBertTensors()));
}

// `text` with its first `from` replaced.
inline std::string Replace(std::string text, std::string_view from, std::string_view to) {
  return text.replace(text.find(from), from.size(), to);
}

}  // namespace nibble::testing
