// A small GGUF model, and the Hugging Face directory with the same tensors and the files made for
// it.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "engine/quantize/hugging_face_files.h"
#include "tests/engine/loader/tiny_models.h"
#include "tests/support/temp_dir.h"

namespace nibble::testing {

inline void AddTokenizer(const GgufTokenizer& fields, GgufWriter& writer) {
  writer.AddText("tokenizer.ggml.model", fields.model);
  writer.AddText("tokenizer.ggml.pre", fields.pre);
  writer.AddTexts("tokenizer.ggml.tokens", fields.tokens);
  writer.AddInts("tokenizer.ggml.token_type", fields.token_types);
  writer.AddTexts("tokenizer.ggml.merges", fields.merges);
  const auto id = [&](const char* key, std::optional<int32_t> value) {
    if (value.has_value()) writer.AddU32(key, static_cast<uint32_t>(*value));
  };
  id("tokenizer.ggml.bos_token_id", fields.bos_id);
  id("tokenizer.ggml.eos_token_id", fields.eos_id);
  id("tokenizer.ggml.unknown_token_id", fields.unk_id);
  id("tokenizer.ggml.padding_token_id", fields.pad_id);
  if (fields.add_bos) writer.AddBool("tokenizer.ggml.add_bos_token", *fields.add_bos);
  if (fields.add_eos) writer.AddBool("tokenizer.ggml.add_eos_token", *fields.add_eos);
}

// TinyGguf with a vocabulary of `rows` and heads of `head_dim`. Mapped files outlive their
// directory entry.
inline std::unique_ptr<Checkpoint> OpenGguf(int64_t rows, std::function<void(GgufWriter&)> more,
                                            int64_t head_dim = 4) {
  const std::vector<TinyTensor> tensors = {{"token_embd.weight", {rows, 8}},
                                           {"blk.0.attn_q.weight", {2 * head_dim, 8}},
                                           {"blk.0.attn_k.weight", {head_dim, 8}},
                                           {"blk.0.attn_v.weight", {head_dim, 8}},
                                           {"blk.0.attn_output.weight", {8, 2 * head_dim}}};
  TinyGguf gguf;
  for (const TinyTensor& tensor : tensors) gguf.without.insert(tensor.name);
  gguf.more = [&](GgufWriter& writer) {
    writer.AddU32("llama.attention.key_length", static_cast<uint32_t>(head_dim));
    writer.AddU32("llama.attention.value_length", static_cast<uint32_t>(head_dim));
    for (const TinyTensor& tensor : tensors) {
      writer.AddTensor(tensor.name, tensor.shape, 0, Ramp(tensor.shape));
    }
    more(writer);
  };
  const TempDir dir;
  auto checkpoint = Checkpoint::Open(dir.Write("m.gguf", gguf.File()));
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

// The same as a directory, whose text files are made from the GGUF.
inline std::unique_ptr<Checkpoint> OpenDirectoryOf(const Checkpoint& gguf) {
  const TempDir dir;
  const auto config = HuggingFaceConfig(gguf, DType::kF16);
  const auto files = HuggingFaceTokenizerFiles(gguf);
  EXPECT_TRUE(config.ok() && files.ok()) << config.status() << files.status();
  if (!config.ok() || !files.ok()) return nullptr;
  dir.Write("config.json", *config);
  for (const TextFile& file : *files) dir.Write(file.name, file.text);
  std::vector<TinyTensor> tensors;
  for (const TensorRef& tensor : gguf.tensors()) tensors.push_back({tensor.name, tensor.shape});
  dir.Write("model.safetensors", WeightsFile(tensors));
  auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

// All that config.json and generation_config.json say, RoPE excepted.
inline void ExpectSameShape(const ModelConfig& got, const ModelConfig& wanted) {
  EXPECT_EQ(got.architecture, wanted.architecture);
  EXPECT_EQ(got.hidden, wanted.hidden);
  EXPECT_EQ(got.num_layers, wanted.num_layers);
  EXPECT_EQ(got.num_heads, wanted.num_heads);
  EXPECT_EQ(got.num_kv_heads, wanted.num_kv_heads);
  EXPECT_EQ(got.head_dim, wanted.head_dim);
  EXPECT_EQ(got.ffn, wanted.ffn);
  EXPECT_EQ(got.vocab, wanted.vocab);
  EXPECT_EQ(got.max_positions, wanted.max_positions);
  EXPECT_EQ(got.norm_eps, wanted.norm_eps);
  EXPECT_EQ(got.activation, wanted.activation);
  EXPECT_EQ(got.tied_head, wanted.tied_head);
  EXPECT_EQ(got.attention_bias, wanted.attention_bias);
  EXPECT_EQ(got.mlp_bias, wanted.mlp_bias);
  EXPECT_EQ(got.generation.do_sample, wanted.generation.do_sample);
  EXPECT_EQ(got.generation.eos_token_ids, wanted.generation.eos_token_ids);
}

inline void ExpectSameRope(const RopeConfig& got, const RopeConfig& wanted) {
  EXPECT_EQ(got.type, wanted.type);
  EXPECT_EQ(got.theta, wanted.theta);
  EXPECT_EQ(got.factor, wanted.factor);
  EXPECT_EQ(got.low_freq_factor, wanted.low_freq_factor);
  EXPECT_EQ(got.high_freq_factor, wanted.high_freq_factor);
  EXPECT_EQ(got.original_max_positions, wanted.original_max_positions);
  EXPECT_EQ(got.freq_divisors, wanted.freq_divisors);
}

}  // namespace nibble::testing
