#include "engine/loader/hf_tokenizer_files.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::testing::HasSubstr;

TEST(HfTokenizerFiles, FindsNothingInAnEmptyDirectory) {
  const TempDir dir;
  const auto files = ReadHfTokenizerFiles(dir.path());
  ASSERT_THAT(files, IsOk());
  EXPECT_FALSE(files->tokenizer.has_value());
  EXPECT_TRUE(files->chat_template.empty());
}

TEST(HfTokenizerFiles, KeepsTheTokenizersTextAndReadsItsConfig) {
  const TempDir dir;
  dir.Write("tokenizer.json", R"({"added_tokens":[{"id":7,"content":"</s>"}],"model":{}})");
  const std::string config = R"({"bos_token":"<s>","eos_token":{"content":"</s>","lstrip":false},
      "chat_template":"{{ x }}","model_max_length":512})";
  dir.Write("tokenizer_config.json", config);
  const auto files = ReadHfTokenizerFiles(dir.path());
  ASSERT_THAT(files, IsOk());
  ASSERT_TRUE(files->tokenizer.has_value());
  EXPECT_EQ(files->tokenizer->tokenizer_config_json, config);
  EXPECT_THAT(files->tokenizer->tokenizer_json, HasSubstr("added_tokens"));
  EXPECT_EQ(files->chat_template, "{{ x }}");
  EXPECT_EQ(files->bos_token, "<s>");
  EXPECT_EQ(files->eos_token, "</s>");
  EXPECT_EQ(files->eos_id, 7);
  EXPECT_EQ(files->model_max_length, 512);
}

TEST(HfTokenizerFiles, FindsTheEosIdInTheConfigsDecoderFirst) {
  const TempDir dir;
  dir.Write("tokenizer.json", R"({"added_tokens":[{"id":7,"content":"</s>"}]})");
  dir.Write("tokenizer_config.json",
            R"({"eos_token":"</s>","added_tokens_decoder":{"3":{"content":"</s>"}}})");
  EXPECT_EQ(ReadHfTokenizerFiles(dir.path())->eos_id, 3);
}

TEST(HfTokenizerFiles, LeavesAnUnknownEosWithoutId) {
  const TempDir dir;
  dir.Write("tokenizer.json", R"({"model":{}})");
  dir.Write("tokenizer_config.json", R"({"eos_token":"</s>"})");
  const auto files = ReadHfTokenizerFiles(dir.path());
  ASSERT_THAT(files, IsOk());
  EXPECT_FALSE(files->eos_id.has_value());
}

TEST(HfTokenizerFiles, FallsBackToTheSpecialTokensMap) {
  const TempDir dir;
  dir.Write("tokenizer_config.json", R"({"bos_token":null})");
  dir.Write("special_tokens_map.json", R"({"bos_token":"<b>","eos_token":{"content":"<e>"}})");
  const auto files = ReadHfTokenizerFiles(dir.path());
  ASSERT_THAT(files, IsOk());
  EXPECT_EQ(files->bos_token, "<b>");
  EXPECT_EQ(files->eos_token, "<e>");
}

TEST(HfTokenizerFiles, TakesTheDefaultOfSeveralTemplates) {
  const TempDir dir;
  dir.Write("tokenizer_config.json", R"({"chat_template":[{"name":"tool_use","template":"T"},
      {"name":"default","template":"D"}]})");
  EXPECT_EQ(ReadHfTokenizerFiles(dir.path())->chat_template, "D");
}

TEST(HfTokenizerFiles, PrefersTheTemplateInAFileOfItsOwn) {
  const TempDir dir;
  dir.Write("tokenizer_config.json", R"({"chat_template":"old"})");
  dir.Write("chat_template.jinja", "new");
  EXPECT_EQ(ReadHfTokenizerFiles(dir.path())->chat_template, "new");
}

TEST(HfTokenizerFiles, TreatsTheHugeLengthAsUnlimited) {
  const TempDir dir;
  dir.Write("tokenizer_config.json", R"({"model_max_length":1000000000000000019884624838656})");
  const auto files = ReadHfTokenizerFiles(dir.path());
  ASSERT_THAT(files, IsOk());
  EXPECT_EQ(files->model_max_length, 0);
}

TEST(HfTokenizerFiles, RefusesBrokenFiles) {
  const auto with = [](const char* file, const char* text) {
    const TempDir dir;
    dir.Write("tokenizer.json", R"({"added_tokens":[]})");
    dir.Write("tokenizer_config.json", R"({"eos_token":"</s>"})");
    dir.Write(file, text);
    return ReadHfTokenizerFiles(dir.path()).status();
  };
  const auto lost = [](const char* part) {
    return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
  };
  EXPECT_THAT(with("tokenizer_config.json", "{"), lost("tokenizer_config.json: is not valid JSON"));
  EXPECT_THAT(with("tokenizer_config.json", R"({"bos_token":3})"), lost("wanted a string"));
  EXPECT_THAT(with("tokenizer_config.json", R"({"bos_token":{}})"),
              lost("bos_token: \"content\" is missing"));
  EXPECT_THAT(with("tokenizer_config.json", R"({"chat_template":[{"name":"default"}]})"),
              lost("chat_template: \"template\" is missing"));
  EXPECT_THAT(with("special_tokens_map.json", "[]"), lost("special_tokens_map.json: is an array"));
  EXPECT_THAT(with("chat_template.jinja", "\xff"), lost("chat_template.jinja: is not UTF-8"));
  EXPECT_THAT(with("tokenizer.json", "{\"added_tokens\":[1,"),
              lost("tokenizer.json: is not valid"));
}

}  // namespace
}  // namespace nibble
