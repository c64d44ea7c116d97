#include "engine/loader/hf_config.h"

#include <gtest/gtest.h>

#include <string>

#include "engine/loader/json.h"
#include "tests/engine/loader/tiny_models.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::kTinyBertConfig;
using ::nibble::testing::kTinyLlamaConfig;
using ::nibble::testing::Replace;
using ::nibble::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<ModelConfig> Parse(const std::string& text) {
  const auto json = ParseJsonObject("config.json", text);
  if (!json.ok()) return json.status();
  return ParseHfConfig(*json);
}
absl::StatusOr<ModelConfig> Llama(std::string_view from, std::string_view to) {
  return Parse(Replace(kTinyLlamaConfig, from, to));
}
absl::StatusOr<ModelConfig> Bert(std::string_view from, std::string_view to) {
  return Parse(Replace(kTinyBertConfig, from, to));
}

auto Unsupported(const std::string& part) {
  return StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(part));
}
auto Lost(const std::string& part) {
  return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
}

TEST(HfConfig, ReadsLlama) {
  const auto config = Parse(kTinyLlamaConfig);
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->architecture, Architecture::kLlama);
  EXPECT_EQ(config->architecture_name, "LlamaForCausalLM");
  EXPECT_EQ(config->hidden, 8);
  EXPECT_EQ(config->ffn, 12);
  EXPECT_EQ(config->num_layers, 1);
  EXPECT_EQ(config->num_heads, 2);
  EXPECT_EQ(config->num_kv_heads, 1);
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_EQ(config->vocab, 10);
  EXPECT_EQ(config->max_positions, 32);
  EXPECT_EQ(config->norm_eps, 1e-5f);
  EXPECT_EQ(config->activation, Activation::kSilu);
  EXPECT_TRUE(config->tied_head);
  EXPECT_FALSE(config->attention_bias);
  EXPECT_FALSE(config->mlp_bias);
  EXPECT_EQ(config->rope.type, RopeType::kDefault);
  EXPECT_EQ(config->rope.theta, 10000.0f);
  EXPECT_THAT(config->generation.eos_token_ids, ElementsAre(2));
  EXPECT_FALSE(config->embedding.present);
}

TEST(HfConfig, TakesTransformersDefaultsForAbsentLlamaFields) {
  const auto config = Parse(R"({"architectures":["LlamaForCausalLM"],"hidden_size":8,
      "intermediate_size":12,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":10,
      "num_key_value_heads":null,"head_dim":null,"rope_scaling":null,"eos_token_id":null})");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_EQ(config->max_positions, 2048);
  EXPECT_EQ(config->norm_eps, 1e-6f);
  EXPECT_FALSE(config->tied_head);
  EXPECT_EQ(config->rope.theta, 10000.0f);
  EXPECT_TRUE(config->generation.eos_token_ids.empty());
}

TEST(HfConfig, LetsHeadDimDifferFromHiddenOverHeads) {
  const auto config = Llama("\"vocab_size\"", "\"head_dim\": 16, \"vocab_size\"");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->head_dim, 16);
}

TEST(HfConfig, ReadsBiases) {
  const auto config =
      Llama("\"vocab_size\"", "\"attention_bias\": true, \"mlp_bias\": true, \"vocab_size\"");
  ASSERT_THAT(config, IsOk());
  EXPECT_TRUE(config->attention_bias);
  EXPECT_TRUE(config->mlp_bias);
}

TEST(HfConfig, ReadsBert) {
  const auto config = Parse(kTinyBertConfig);
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->architecture, Architecture::kBert);
  EXPECT_EQ(config->max_positions, 16);
  EXPECT_EQ(config->type_vocab, 2);
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->norm_eps, 1e-12f);
  EXPECT_EQ(config->activation, Activation::kGelu);
  const auto tanh = Bert("\"vocab_size\"", "\"hidden_act\": \"gelu_new\", \"vocab_size\"");
  ASSERT_THAT(tanh, IsOk());
  EXPECT_EQ(tanh->activation, Activation::kGeluTanh);
}

TEST(HfConfig, KnowsArchitecturesByClassOrByModelType) {
  EXPECT_THAT(Bert("BertModel", "BertForMaskedLM"), IsOk());
  const auto by_type = Llama("\"architectures\": [\"LlamaForCausalLM\"], ", "");
  ASSERT_THAT(by_type, IsOk());
  EXPECT_EQ(by_type->architecture_name, "LlamaForCausalLM");
  EXPECT_THAT(Llama("[\"LlamaForCausalLM\"]", "[]"), IsOk());
}

TEST(HfConfig, RefusesOtherArchitecturesByName) {
  EXPECT_THAT(Llama("LlamaForCausalLM", "Qwen2ForCausalLM"),
              Unsupported("config.json: architecture \"Qwen2ForCausalLM\" is not supported; "
                          "supported: LlamaForCausalLM, BertModel"));
  EXPECT_THAT(Parse(R"({"model_type":"gemma3"})"), Unsupported("\"gemma3\""));
  EXPECT_THAT(Bert("BertModel", "BertForSequenceClassification"),
              Unsupported("BertForSequenceClassification"));
  EXPECT_THAT(Parse("{}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("names no model")));
  EXPECT_THAT(Parse(R"({"architectures":[3]})"), Lost("architectures"));
  EXPECT_THAT(Parse(R"({"architectures":"LlamaForCausalLM"})"), Lost("wanted an array"));
}

TEST(HfConfig, RefusesPreQuantizedWeightsByName) {
  EXPECT_THAT(
      Llama("\"vocab_size\"", R"("quantization_config": {"quant_method": "gptq"}, "vocab_size")"),
      Unsupported("weights quantized by \"gptq\""));
  EXPECT_THAT(Llama("\"vocab_size\"", R"("quantization_config": {}, "vocab_size")"),
              Unsupported("weights quantized by \"unnamed\""));
  EXPECT_THAT(Llama("\"vocab_size\"", R"("quantization_config": null, "vocab_size")"), IsOk());
}

TEST(HfConfig, RefusesVariantsByName) {
  EXPECT_THAT(Llama("\"vocab_size\"", R"("hidden_act": "gelu", "vocab_size")"),
              Unsupported("hidden_act \"gelu\" is not supported for Llama"));
  EXPECT_THAT(Bert("\"vocab_size\"", R"("hidden_act": "relu", "vocab_size")"),
              Unsupported("hidden_act \"relu\" is not supported for BERT"));
  EXPECT_THAT(Bert("\"vocab_size\"", R"("position_embedding_type": "relative_key", "vocab_size")"),
              Unsupported("position_embedding_type \"relative_key\""));
  EXPECT_THAT(Bert("\"vocab_size\"", R"("is_decoder": true, "vocab_size")"),
              Unsupported("as a decoder"));
}

TEST(HfConfig, NamesMissingAndImpossibleFields) {
  EXPECT_THAT(Llama("\"hidden_size\": 8,", ""), Lost("config.json: \"hidden_size\" is missing"));
  EXPECT_THAT(Llama("\"hidden_size\": 8", "\"hidden_size\": 0"), Lost("\"hidden_size\" is 0"));
  EXPECT_THAT(Llama("\"hidden_size\": 8", "\"hidden_size\": -8"), Lost("\"hidden_size\" is -8"));
  EXPECT_THAT(Llama("\"hidden_size\": 8", "\"hidden_size\": \"8\""), Lost("is \"8\""));
  EXPECT_THAT(Llama("\"hidden_size\": 8", "\"hidden_size\": 1e18"),
              Lost("\"hidden_size\" is 1e+18"));
  EXPECT_THAT(Llama("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1000000000"),
              Lost("wanted an integer from 1 to 4096"));
  EXPECT_THAT(Llama("\"num_attention_heads\": 2", "\"num_attention_heads\": 0"), Lost("is 0"));
  EXPECT_THAT(Llama("\"vocab_size\": 10", "\"vocab_size\": 9223372036854775807"),
              Lost("vocab_size"));
  EXPECT_THAT(Llama("1e-5", "0"), Lost("rms_norm_eps"));
  EXPECT_THAT(Llama("1e-5", "-1"), Lost("rms_norm_eps"));
  EXPECT_THAT(Llama("true", "1"), Lost("\"tie_word_embeddings\" is 1, wanted true or false"));
}

TEST(HfConfig, NamesBothSidesOfAContradiction) {
  const auto inconsistent = [](const char* part) {
    return StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(part));
  };
  EXPECT_THAT(Llama("\"hidden_size\": 8", "\"hidden_size\": 9"),
              inconsistent("hidden_size 9 is no multiple of num_attention_heads 2"));
  EXPECT_THAT(Llama("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3"),
              inconsistent("2 attention heads over 3 key-value heads"));
  EXPECT_THAT(Llama("\"vocab_size\"", "\"head_dim\": 5, \"vocab_size\""),
              inconsistent("head_dim is 5"));
  EXPECT_THAT(Llama("\"eos_token_id\": 2", "\"eos_token_id\": 10"),
              inconsistent("end-of-text token 10, but the vocabulary has 10 tokens"));
  EXPECT_THAT(Bert("\"hidden_size\": 8", "\"hidden_size\": 7"), inconsistent("hidden_size 7"));
}

TEST(HfConfig, ReadsEosIdsAsANumberOrAList) {
  const auto list = Llama("\"eos_token_id\": 2", "\"eos_token_id\": [3, 2, 3, -1]");
  ASSERT_THAT(list, IsOk());
  EXPECT_THAT(list->generation.eos_token_ids, ElementsAre(3, 2));
  EXPECT_THAT(Llama("\"eos_token_id\": 2", "\"eos_token_id\": [2, \"x\"]"),
              Lost("\"eos_token_id\" is or contains \"x\""));
  EXPECT_THAT(Llama("\"eos_token_id\": 2", "\"eos_token_id\": 1.5"), Lost("contains 1.5"));
}

absl::StatusOr<ModelConfig> WithGeneration(const std::string& text) {
  auto config = Parse(kTinyLlamaConfig);
  if (!config.ok()) return config;
  const auto json = ParseJsonObject("generation_config.json", text);
  if (!json.ok()) return json.status();
  absl::Status added = AddGenerationConfig(*json, *config);
  if (!added.ok()) return added;
  return config;
}

TEST(GenerationConfig, JoinsEosIdsAndReadsSamplingDefaults) {
  const auto config = WithGeneration(R"({"do_sample":true,"temperature":0.6,"top_k":20,"top_p":0.9,
      "min_p":0.05,"repetition_penalty":1.1,"eos_token_id":[4,2]})");
  ASSERT_THAT(config, IsOk());
  const GenerationDefaults& defaults = config->generation;
  EXPECT_TRUE(defaults.do_sample);
  EXPECT_EQ(defaults.temperature, 0.6f);
  EXPECT_EQ(defaults.top_k, 20);
  EXPECT_EQ(defaults.top_p, 0.9f);
  EXPECT_EQ(defaults.min_p, 0.05f);
  EXPECT_EQ(defaults.repetition_penalty, 1.1f);
  EXPECT_THAT(defaults.eos_token_ids, ElementsAre(2, 4));
}

TEST(GenerationConfig, LeavesAbsentFieldsAbsent) {
  const auto config = WithGeneration(R"({"temperature":null})");
  ASSERT_THAT(config, IsOk());
  EXPECT_FALSE(config->generation.do_sample);
  EXPECT_FALSE(config->generation.temperature.has_value());
  EXPECT_FALSE(config->generation.top_k.has_value());
  EXPECT_THAT(config->generation.eos_token_ids, ElementsAre(2));
}

TEST(GenerationConfig, RefusesImpossibleDefaults) {
  EXPECT_THAT(WithGeneration(R"({"temperature":-1})"),
              Lost("generation_config.json: \"temperature\" is -1"));
  EXPECT_THAT(WithGeneration(R"({"top_p":1.5})"), Lost("\"top_p\" is 1.5"));
  EXPECT_THAT(WithGeneration(R"({"top_k":-1})"), Lost("\"top_k\" is -1"));
  EXPECT_THAT(WithGeneration(R"({"repetition_penalty":0})"), Lost("\"repetition_penalty\" is 0"));
}

}  // namespace
}  // namespace nibble
