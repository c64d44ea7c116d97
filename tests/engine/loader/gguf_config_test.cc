#include "engine/loader/gguf_config.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/engine/loader/tiny_models.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::GgufWriter;
using ::nibble::testing::IsOk;
using ::nibble::testing::Ramp;
using ::nibble::testing::RawBytes;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyGguf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The tiny model without some pieces and with others.
absl::StatusOr<ModelConfig> Parse(std::set<std::string> without,
                                  std::function<void(GgufWriter&)> more) {
  const std::string text = TinyGguf{std::move(without), std::move(more)}.File();
  const std::vector<uint8_t> bytes(text.begin(), text.end());
  const auto file = ParseGguf("m.gguf", bytes);
  if (!file.ok()) return file.status();
  return ParseGgufConfig(*file);
}
absl::StatusOr<ModelConfig> With(std::function<void(GgufWriter&)> more) {
  return Parse({}, std::move(more));
}
absl::StatusOr<ModelConfig> WithU32(const char* key, uint32_t value) {
  return Parse({key}, [&](GgufWriter& w) { w.AddU32(key, value); });
}

auto Unsupported(const std::string& part) {
  return StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(part));
}
auto Lost(const std::string& part) {
  return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
}
auto Inconsistent(const std::string& part) {
  return StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(part));
}

TEST(GgufConfig, ReadsLlama) {
  const auto config = With([](GgufWriter&) {});
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->architecture, Architecture::kLlama);
  EXPECT_EQ(config->architecture_name, "llama");
  EXPECT_EQ(config->hidden, 8);
  EXPECT_EQ(config->num_layers, 1);
  EXPECT_EQ(config->num_heads, 2);
  EXPECT_EQ(config->num_kv_heads, 1);
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_EQ(config->ffn, 12);
  EXPECT_EQ(config->vocab, 10);
  EXPECT_EQ(config->max_positions, 32);
  EXPECT_EQ(config->norm_eps, 1e-5f);
  EXPECT_TRUE(config->tied_head);
  EXPECT_FALSE(config->attention_bias);
  EXPECT_FALSE(config->mlp_bias);
  EXPECT_EQ(config->rope.type, RopeType::kDefault);
  EXPECT_EQ(config->rope.theta, 10000.0f);
  EXPECT_TRUE(config->rope.freq_divisors.empty());
  EXPECT_EQ(config->dtype, DType::kF32);
}

TEST(GgufConfig, LearnsFromTheTensors) {
  const auto config = With([](GgufWriter& w) {
    w.AddTensor("output.weight", {10, 8}, 0, Ramp({10, 8}));
    w.AddTensor("blk.0.attn_q.bias", {8}, 0, Ramp({8}));
    w.AddTensor("blk.0.ffn_gate.bias", {12}, 0, Ramp({12}));
    w.AddTensor("rope_freqs.weight", {2}, 0, RawBytes(std::vector<float>{1, 8}));
  });
  ASSERT_THAT(config, IsOk());
  EXPECT_FALSE(config->tied_head);
  EXPECT_TRUE(config->attention_bias);
  EXPECT_TRUE(config->mlp_bias);
  EXPECT_THAT(config->rope.freq_divisors, ElementsAre(1, 8));
}

TEST(GgufConfig, TakesTheDtypeOfItsMatrices) {
  for (const auto& [type, dtype] :
       std::vector<std::pair<uint32_t, DType>>{{1, DType::kF16}, {30, DType::kBF16}}) {
    const auto config = Parse({"blk.0.attn_q.weight"}, [&](GgufWriter& w) {
      w.AddTensor("blk.0.attn_q.weight", {8, 8}, type, std::string(128, '\0'));
    });
    ASSERT_THAT(config, IsOk());
    EXPECT_EQ(config->dtype, dtype);
  }
}

TEST(GgufConfig, TakesHeadsOfTheirOwnWidth) {
  const auto config = With([](GgufWriter& w) {
    w.AddU32("llama.attention.key_length", 16);
    w.AddU32("llama.attention.value_length", 16);
    w.AddU32("llama.rope.dimension_count", 16);
  });
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->head_dim, 16);
}

TEST(GgufConfig, ReadsLinearRopeScaling) {
  const auto config = With([](GgufWriter& w) {
    w.AddF32("llama.rope.freq_base", 5e5f);
    w.AddText("llama.rope.scaling.type", "linear");
    w.AddF32("llama.rope.scaling.factor", 4);
  });
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->rope.type, RopeType::kLinear);
  EXPECT_EQ(config->rope.factor, 4.0f);
  EXPECT_EQ(config->rope.theta, 5e5f);
  const auto old = With([](GgufWriter& w) { w.AddF32("llama.rope.scale_linear", 2); });
  ASSERT_THAT(old, IsOk());
  EXPECT_EQ(old->rope.type, RopeType::kLinear);
  EXPECT_EQ(old->rope.factor, 2.0f);
  EXPECT_EQ(With([](GgufWriter& w) { w.AddText("llama.rope.scaling.type", "none"); })->rope.type,
            RopeType::kDefault);
}

TEST(GgufConfig, RefusesOtherModelsByName) {
  const auto text = [](const char* key, const char* value) {
    return Parse({key}, [&](GgufWriter& w) { w.AddText(key, value); });
  };
  EXPECT_THAT(text("general.architecture", "qwen2"),
              Unsupported("m.gguf: architecture \"qwen2\" is not supported; supported: llama"));
  EXPECT_THAT(text("general.architecture", "bert"), Unsupported("architecture \"bert\""));
  EXPECT_THAT(text("general.type", "adapter"), Unsupported("a GGUF of type \"adapter\""));
  EXPECT_THAT(text("llama.rope.scaling.type", "yarn"), Unsupported("RoPE type \"yarn\""));
  EXPECT_THAT(WithU32("split.count", 2), Unsupported("in several files"));
  EXPECT_THAT(WithU32("llama.expert_count", 8), Unsupported("mixture of experts"));
  EXPECT_THAT(WithU32("llama.attention.sliding_window", 4096), Unsupported("sliding_window"));
  EXPECT_THAT(WithU32("llama.rope.dimension_count", 2),
              Unsupported("llama.rope.dimension_count 2 is not supported with heads of 4"));
  EXPECT_THAT(WithU32("llama.attention.value_length", 8), Unsupported("value_length 8"));
}

TEST(GgufConfig, NamesMissingAndImpossibleFields) {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.context_length",
                          "llama.embedding_length", "llama.feed_forward_length",
                          "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"}) {
    EXPECT_THAT(Parse({key}, [](GgufWriter&) {}),
                Lost(std::string("m.gguf: \"") + key + "\" is missing"));
  }
  EXPECT_THAT(WithU32("llama.attention.head_count", 0), Lost("is 0, wanted an integer from 1"));
  EXPECT_THAT(WithU32("llama.block_count", 0xffffffff),
              Lost("\"llama.block_count\" is 4294967295"));
  EXPECT_THAT(Parse({"llama.attention.head_count_kv"},
                    [](GgufWriter& w) { w.AddInts("llama.attention.head_count_kv", {1}); }),
              Lost("\"llama.attention.head_count_kv\" is an array"));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(With([&](GgufWriter& w) { w.AddF32("llama.rope.freq_base", nan); }),
              Lost("\"llama.rope.freq_base\" is nan"));
}

TEST(GgufConfig, NamesBothSidesOfAContradiction) {
  EXPECT_THAT(WithU32("llama.vocab_size", 11),
              Inconsistent("\"token_embd.weight\" has shape [10,8], llama.vocab_size is 11"));
  EXPECT_THAT(WithU32("llama.embedding_length", 9), Inconsistent("llama.embedding_length 9"));
  EXPECT_THAT(WithU32("llama.attention.head_count_kv", 3), Inconsistent("3 key-value heads"));
  EXPECT_THAT(WithU32("llama.attention.key_length", 5), Inconsistent("head_dim is 5"));
  EXPECT_THAT(Parse({"token_embd.weight"}, [](GgufWriter&) {}),
              Inconsistent("\"token_embd.weight\" is missing"));
}

TEST(GgufConfig, ChecksRopeDivisors) {
  const auto divisors = [](std::vector<float> values) {
    return With([&](GgufWriter& w) {
      w.AddTensor("rope_freqs.weight", {static_cast<int64_t>(values.size())}, 0, RawBytes(values));
    });
  };
  EXPECT_THAT(divisors({1, 2, 3}), Inconsistent("has shape [3], heads of 4 want [2]"));
  EXPECT_THAT(divisors({1, 0}), Lost("\"rope_freqs.weight\" contains 0"));
  EXPECT_THAT(divisors({1, -1}), Lost("contains -1"));
  EXPECT_THAT(divisors({std::numeric_limits<float>::infinity(), 1}), Lost("contains inf"));
}

TEST(TranslateTensors, GivesHuggingFacesNamesAndMarksPermutedRows) {
  const std::string text = TinyGguf{
      {}, [](GgufWriter& w) {
        w.AddTensor("output.weight", {10, 8}, 0, Ramp({10, 8}));
        w.AddTensor("blk.0.attn_k.bias", {4}, 0, Ramp({4}));
        w.AddTensor("rope_freqs.weight", {2}, 0, Ramp({2}));
        w.AddTensor("blk.0.attn_q_norm.weight", {4}, 0, Ramp({4}));
        w.AddTensor("blk.", {1}, 0, Ramp({1}));
        w.AddTensor("blk.0.weight", {1}, 0, Ramp({1}));
      }}.File();
  const std::vector<uint8_t> bytes(text.begin(), text.end());
  const auto file = ParseGguf("m.gguf", bytes);
  ASSERT_THAT(file, IsOk());
  ModelConfig config;
  config.head_dim = 4;
  std::vector<std::string> names, permuted;
  for (const TensorRef& tensor : TranslateTensors(*file, config)) {
    names.push_back(tensor.name);
    if (tensor.permuted_head_rows == 4) permuted.push_back(tensor.name);
  }
  EXPECT_THAT(
      names, ElementsAre(
                 "lm_head.weight", "model.layers.0.self_attn.k_proj.bias",
                 "blk.0.attn_q_norm.weight", "blk.", "blk.0.weight", "model.embed_tokens.weight",
                 "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight",
                 "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
                 "model.layers.0.self_attn.o_proj.weight",
                 "model.layers.0.post_attention_layernorm.weight",
                 "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight",
                 "model.layers.0.mlp.down_proj.weight", "model.norm.weight"));
  EXPECT_THAT(permuted, ElementsAre("model.layers.0.self_attn.k_proj.bias",
                                    "model.layers.0.self_attn.q_proj.weight",
                                    "model.layers.0.self_attn.k_proj.weight"));
}

}  // namespace
}  // namespace nibble
