#include "engine/loader/hf_weights.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::SafetensorsWriter;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::testing::HasSubstr;

ModelConfig Config(Architecture architecture, bool tied_head = false) {
  ModelConfig config;
  config.architecture = architecture;
  config.tied_head = tied_head;
  return config;
}
const ModelConfig kLlama = Config(Architecture::kLlama);
const ModelConfig kBert = Config(Architecture::kBert);

std::string OneTensor(const char* name, const char* dtype, const char* bytes) {
  SafetensorsWriter writer;
  writer.Add(name, dtype, {1}, bytes);
  return writer.File();
}

TEST(CanonicalName, AddsThePrefixOfABareLlama) {
  EXPECT_EQ(CanonicalName(kLlama, "layers.0.mlp.up_proj.weight"),
            "model.layers.0.mlp.up_proj.weight");
  EXPECT_EQ(CanonicalName(kLlama, "embed_tokens.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(CanonicalName(kLlama, "norm.weight"), "model.norm.weight");
  EXPECT_EQ(CanonicalName(kLlama, "model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(CanonicalName(kLlama, "lm_head.weight"), "lm_head.weight");
}

TEST(CanonicalName, LeavesOutWhatLlamaDoesNotComputeWith) {
  EXPECT_EQ(CanonicalName(kLlama, "model.layers.0.self_attn.rotary_emb.inv_freq"), std::nullopt);
  EXPECT_EQ(CanonicalName(Config(Architecture::kLlama, true), "lm_head.weight"), std::nullopt);
}

TEST(CanonicalName, NormalizesBert) {
  EXPECT_EQ(CanonicalName(kBert, "bert.encoder.layer.0.output.LayerNorm.gamma"),
            "encoder.layer.0.output.LayerNorm.weight");
  EXPECT_EQ(CanonicalName(kBert, "embeddings.LayerNorm.beta"), "embeddings.LayerNorm.bias");
  EXPECT_EQ(CanonicalName(kBert, "embeddings.word_embeddings.weight"),
            "embeddings.word_embeddings.weight");
  EXPECT_EQ(CanonicalName(kBert, "bert.pooler.dense.weight"), std::nullopt);
  EXPECT_EQ(CanonicalName(kBert, "embeddings.position_ids"), std::nullopt);
  EXPECT_EQ(CanonicalName(kBert, "cls.predictions.bias"), std::nullopt);
}

TEST(HfWeights, ReadsOneFile) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.Add("a", "F32", {1}, "abcd");
  writer.Add("b", "F16", {1}, "ab");
  writer.Add("c", "BF16", {1}, "ab");
  dir.Write("model.safetensors", writer.File());
  const auto weights = ReadHfWeights(dir.path(), kLlama);
  ASSERT_THAT(weights, IsOk());
  ASSERT_EQ(weights->tensors.size(), 3u);
  EXPECT_EQ(weights->tensors[0].type, TensorType::kF32);
  EXPECT_EQ(weights->tensors[0].file, "model.safetensors");
  EXPECT_EQ(weights->tensors[1].type, TensorType::kF16);
  EXPECT_EQ(weights->tensors[2].type, TensorType::kBF16);
  EXPECT_EQ(weights->tensors[2].bytes, 2);
}

TEST(HfWeights, ReadsShardsAsTheIndexSays) {
  const TempDir dir;
  dir.Write("model.safetensors.index.json", R"({"metadata":{"total_size":8},"weight_map":
      {"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})");
  dir.Write("model-00001-of-00002.safetensors", OneTensor("a", "F32", "abcd"));
  SafetensorsWriter second;
  second.Add("b", "F32", {1}, "abcd");
  second.Add("a", "F32", {1}, "efgh");  // the index takes "a" from the first file
  dir.Write("model-00002-of-00002.safetensors", second.File());
  const auto weights = ReadHfWeights(dir.path(), kLlama);
  ASSERT_THAT(weights, IsOk());
  ASSERT_EQ(weights->tensors.size(), 2u);
  EXPECT_EQ(weights->tensors[0].name, "a");
  EXPECT_EQ(weights->tensors[0].data[0], 'a');
  EXPECT_EQ(weights->files.size(), 2u);
}

TEST(HfWeights, RefusesAnIndexThatLies) {
  const TempDir dir;
  dir.Write("model.safetensors.index.json", R"({"weight_map":{"a":"x.safetensors"}})");
  EXPECT_THAT(ReadHfWeights(dir.path(), kLlama),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("x.safetensors: ")));
  dir.Write("x.safetensors", OneTensor("b", "F32", "abcd"));
  EXPECT_THAT(ReadHfWeights(dir.path(), kLlama),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("has 0 of the 1 tensors")));
}

TEST(HfWeights, RefusesAnIndexThatLeavesTheFolder) {
  const TempDir dir;
  for (const char* file : {"../x.safetensors", "/x.safetensors", "a/x.safetensors",
                           ".x.safetensors", "x.bin", "", "x\\u0000.safetensors"}) {
    dir.Write("model.safetensors.index.json",
              std::string("{\"weight_map\":{\"a\":\"") + file + "\"}}");
    EXPECT_THAT(ReadHfWeights(dir.path(), kLlama),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("plain name")))
        << file;
  }
  for (const char* index : {"{}", "{\"weight_map\":{}}", "{\"weight_map\":3}"}) {
    dir.Write("model.safetensors.index.json", index);
    EXPECT_THAT(ReadHfWeights(dir.path(), kLlama),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("has no \"weight_map\"")));
  }
}

TEST(HfWeights, RefusesOtherDtypesByName) {
  const TempDir dir;
  dir.Write("model.safetensors", OneTensor("w", "I32", "abcd"));
  EXPECT_THAT(
      ReadHfWeights(dir.path(), kLlama),
      StatusIs(absl::StatusCode::kUnimplemented,
               "model.safetensors: tensor \"w\" has dtype I32; supported: F32, F16, BF16, and "
               "bitsandbytes' 4-bit and 8-bit matrices"));
}

TEST(HfWeights, IgnoresTheDtypeOfWhatItLeavesOut) {
  const TempDir dir;
  dir.Write("model.safetensors", OneTensor("embeddings.position_ids", "I64", "12345678"));
  const auto weights = ReadHfWeights(dir.path(), kBert);
  ASSERT_THAT(weights, IsOk());
  EXPECT_TRUE(weights->tensors.empty());
}

TEST(HfWeights, SaysWhatThereIsInsteadOfSafetensors) {
  const TempDir dir;
  EXPECT_THAT(ReadHfWeights(dir.path(), kLlama),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has no weights")));
  dir.Write("consolidated.safetensors", "x");
  EXPECT_THAT(ReadHfWeights(dir.path(), kLlama),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("consolidated.safetensors")));
  dir.Write("pytorch_model.bin", "x");
  EXPECT_THAT(ReadHfWeights(dir.path(), kLlama),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("pytorch_model.bin: pickled weights are never read")));
}

}  // namespace
}  // namespace nibble
