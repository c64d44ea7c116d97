#include "engine/loader/expected_tensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "engine/status.h"
#include "tests/engine/loader/bitsandbytes_parts.h"
#include "tests/engine/loader/tiny_models.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::kTinyBertConfig;
using ::nibble::testing::kTinyLlamaConfig;
using ::nibble::testing::Replace;
using ::nibble::testing::SafetensorsOf;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::nibble::testing::TinyBertTensors;
using ::nibble::testing::TinyGguf;
using ::nibble::testing::TinyLlamaTensors;
using ::nibble::testing::TinyParts;
using ::nibble::testing::TinyTensor;
using ::nibble::testing::WeightsFile;
using ::testing::HasSubstr;

absl::Status OpenStatus(const std::string& config, const std::vector<TinyTensor>& tensors) {
  const TempDir dir;
  dir.Write("config.json", config);
  dir.Write("model.safetensors", WeightsFile(tensors));
  return Checkpoint::Open(dir.path()).status();
}

// Checks that the model opens, and that it does not without any one of its tensors, or with that
// one a row longer.
void ExpectEveryTensorIsNeeded(const std::string& config, const std::vector<TinyTensor>& tensors) {
  EXPECT_THAT(OpenStatus(config, tensors), IsOk());
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<TinyTensor> changed = tensors;
    ++changed[i].shape[0];
    const absl::Status longer = OpenStatus(config, changed);
    EXPECT_THAT(longer, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("tensor \"" + tensors[i].name + "\" has shape [")));
    EXPECT_EQ(ReasonOf(longer), "SHAPE_MISMATCH");
    changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
    const absl::Status missing = OpenStatus(config, changed);
    EXPECT_THAT(missing, StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("tensor \"" + tensors[i].name + "\" is missing")));
    EXPECT_EQ(ReasonOf(missing), "MISSING_TENSOR");
  }
}

TEST(ExpectedTensors, AreAllOfLlamas) {
  ExpectEveryTensorIsNeeded(kTinyLlamaConfig, TinyLlamaTensors());
}

TEST(ExpectedTensors, AreAllOfBerts) {
  ExpectEveryTensorIsNeeded(kTinyBertConfig, TinyBertTensors());
}

TEST(ExpectedTensors, IncludeAnUntiedHeadAndBiases) {
  const std::string config =
      Replace(kTinyLlamaConfig, "\"tie_word_embeddings\": true",
              R"("tie_word_embeddings": false, "attention_bias": true, "mlp_bias": true)");
  std::vector<TinyTensor> tensors = TinyLlamaTensors();
  const std::vector<TinyTensor> plain = tensors;
  for (const TinyTensor& tensor : plain) {
    if (tensor.name.find("_proj.weight") == std::string::npos) continue;
    tensors.push_back({Replace(tensor.name, ".weight", ".bias"), {tensor.shape[0]}});
  }
  tensors.push_back({"lm_head.weight", {10, 8}});
  ExpectEveryTensorIsNeeded(config, tensors);
}

TEST(ExpectedTensors, NameBothValues) {
  EXPECT_THAT(OpenStatus(Replace(kTinyLlamaConfig, "\"vocab_size\": 10", "\"vocab_size\": 11"),
                         TinyLlamaTensors()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "model.safetensors: tensor \"model.embed_tokens.weight\" has shape [10,8], "
                       "config.json says [11,8]"));
  const TempDir dir;
  TinyGguf gguf;
  gguf.without = {"llama.feed_forward_length"};
  gguf.more = [](auto& writer) { writer.AddU32("llama.feed_forward_length", 13); };
  EXPECT_THAT(Checkpoint::Open(dir.Write("m.gguf", gguf.File())),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "m.gguf: tensor \"model.layers.0.mlp.gate_proj.weight\" has shape [12,8], "
                       "m.gguf says [13,8]"));
}

TEST(ExpectedTensors, RefuseTheTransposed) {
  std::vector<TinyTensor> tensors = TinyLlamaTensors();
  for (TinyTensor& tensor : tensors) {
    if (tensor.name.ends_with("down_proj.weight"))
      std::reverse(tensor.shape.begin(), tensor.shape.end());
  }
  EXPECT_THAT(OpenStatus(kTinyLlamaConfig, tensors),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has shape [12,8], config.json says [8,12]")));
}

TEST(ExpectedTensors, RefuseWhatTheConfigDoesNotCallFor) {
  std::vector<TinyTensor> tensors = TinyLlamaTensors();
  tensors.push_back({"model.layers.0.self_attn.q_norm.weight", {4}});
  const absl::Status status = OpenStatus(kTinyLlamaConfig, tensors);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("q_norm.weight\" is no part of LlamaForCausalLM as "
                                         "config.json describes it")));
  EXPECT_EQ(ReasonOf(status), "UNEXPECTED_TENSOR");
}

TEST(ExpectedTensors, RefuseLayersPastTheConfigsCount) {
  EXPECT_THAT(OpenStatus(Replace(kTinyLlamaConfig, "\"num_hidden_layers\": 1",
                                 "\"num_hidden_layers\": 4096"),
                         TinyLlamaTensors()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("\"model.layers.1.input_layernorm.weight\" is missing")));
}

TEST(ExpectedTensors, RefuseVectorsInBlocks) {
  const TempDir dir;
  TinyGguf gguf;
  gguf.hidden = 32;
  EXPECT_THAT(Checkpoint::Open(dir.Write("m.gguf", gguf.File())), IsOk());
  gguf.without = {"output_norm.weight"};
  gguf.more = [](auto& writer) {
    writer.AddTensor("output_norm.weight", {32}, 8, std::string(34, '\0'));
  };
  EXPECT_THAT(Checkpoint::Open(dir.Write("m.gguf", gguf.File())),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("tensor \"model.norm.weight\" has type Q8_0")));
}

// The tiny model with these tensors in 4 bits.
absl::Status OpenQuantized(const char* config, const std::vector<TinyTensor>& tensors,
                           const std::set<std::string>& in_four_bits) {
  const TempDir dir;
  dir.Write("config.json", config);
  dir.Write("model.safetensors", SafetensorsOf(TinyParts(tensors, in_four_bits)));
  return Checkpoint::Open(dir.path()).status();
}

TEST(ExpectedTensors, MayBeQuantizedWhereALinearLayerMultiplies) {
  std::vector<TinyTensor> llama = TinyLlamaTensors();
  llama.push_back({"lm_head.weight", {10, 8}});
  const std::string untied =
      Replace(kTinyLlamaConfig, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
  int linear = 0;
  for (const TinyTensor& tensor : llama) {
    const bool is_linear = tensor.name.ends_with("_proj.weight") || tensor.name == "lm_head.weight";
    linear += is_linear ? 1 : 0;
    const absl::Status status = OpenQuantized(untied.c_str(), llama, {tensor.name});
    if (is_linear) {
      EXPECT_THAT(status, IsOk()) << tensor.name;
    } else {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnimplemented,
                                   "model.safetensors: tensor \"" + tensor.name +
                                       "\" has type NF4; only matrices of linear layers may be "
                                       "quantized, this one has F32, F16 or BF16"));
    }
  }
  EXPECT_EQ(linear, 8);
}

TEST(ExpectedTensors, OfABertMayBeQuantizedInItsLinearLayers) {
  for (const TinyTensor& tensor : TinyBertTensors()) {
    if (!tensor.name.ends_with(".weight")) continue;
    const bool plain = tensor.name.starts_with("embeddings.") ||
                       tensor.name.find("LayerNorm") != std::string::npos;
    EXPECT_EQ(OpenQuantized(kTinyBertConfig, TinyBertTensors(), {tensor.name}).code(),
              plain ? absl::StatusCode::kUnimplemented : absl::StatusCode::kOk)
        << tensor.name;
  }
}

TEST(ExpectedTensors, HaveTheirShapeInTheQuantState) {
  std::vector<TinyTensor> tensors = TinyLlamaTensors();
  for (TinyTensor& tensor : tensors) {
    if (tensor.name.ends_with("down_proj.weight")) tensor.shape = {12, 8};
  }
  EXPECT_THAT(
      OpenQuantized(kTinyLlamaConfig, tensors, {"model.layers.0.mlp.down_proj.weight"}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               "model.safetensors: tensor \"model.layers.0.mlp.down_proj.weight\" has shape "
               "[12,8], config.json says [8,12]"));
}

}  // namespace
}  // namespace nibble
