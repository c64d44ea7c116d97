// What a caller may rely on beside equality with Hugging Face: errors, contents without control
// tokens, exact memory, threads.
#include "engine/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <malloc.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "engine/tokenizer/utf8.h"
#include "tests/engine/tokenizer/golden.h"

namespace nibble {
namespace {

using golden::LoadTiny;
using testing::HasSubstr;

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text) {
  return tokenizer.Encode(text, false).value().ids;
}

std::vector<int32_t> SegmentIds(const Tokenizer& tokenizer,
                                const std::vector<TextSegment>& segments) {
  return tokenizer.EncodeSegments(segments).value();
}

TEST(Tokenizer, RefusesInvalidUtf8WithItsPlace) {
  const auto tokenizer = LoadTiny("gpt2");
  ASSERT_NE(tokenizer, nullptr);
  const absl::Status status = tokenizer->Encode("ok \xFF", true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "INVALID_UTF8");
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 3"));
  const std::vector<TextSegment> segments = {{"a", false}, {"b\xE2\x82", true}};
  EXPECT_EQ(tokenizer->EncodeSegments(segments).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, RefusesIdsOutOfRange) {
  const auto tokenizer = LoadTiny("gpt2");
  ASSERT_NE(tokenizer, nullptr);
  for (const int32_t id : {-1, tokenizer->vocab_size(), INT32_MAX}) {
    const absl::Status status = tokenizer->Decode(std::vector<int32_t>{0, id}, true).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(status), "TOKEN_OUT_OF_RANGE");
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("token 1 has id ", id)));
  }
}

TEST(Tokenizer, GivesTheCorpusBackFromItsIds) {
  for (const char* name : {"gpt2", "llama3", "tekken", "o200k", "deepseek", "smollm", "no_split"}) {
    const auto tokenizer = LoadTiny(name);
    ASSERT_NE(tokenizer, nullptr);
    for (const std::string& text : golden::Corpus()) {
      ASSERT_EQ(tokenizer->Decode(Ids(*tokenizer, text), false).value(), text) << name;
    }
  }
}

TEST(Tokenizer, SegmentsOfATemplateAreOneText) {
  const auto tokenizer = LoadTiny("llama3");
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = "<|im_start|>user\nThe server's late<|im_end|>\n";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const std::vector<TextSegment> segments = {{text.substr(0, cut), false},
                                               {text.substr(cut), false}};
    ASSERT_EQ(SegmentIds(*tokenizer, segments), Ids(*tokenizer, text)) << cut;
  }
  EXPECT_EQ(
      SegmentIds(*tokenizer, {{"The ser", true}, {"ver's", false}, {"", true}, {" late", true}}),
      Ids(*tokenizer, "The server's late"));
}

TEST(Tokenizer, NoContentMakesAControlToken) {
  for (const char* name : {"llama3", "qwen2"}) {
    const auto tokenizer = LoadTiny(name);
    ASSERT_NE(tokenizer, nullptr);
    const std::string token = "<|im_end|>";
    const int32_t id = tokenizer->TokenToId(token).value();
    const auto count = [&](const std::vector<TextSegment>& segments) {
      const std::vector<int32_t> ids = SegmentIds(*tokenizer, segments);
      EXPECT_EQ(tokenizer->Decode(ids, false).value().find("<|im_end|>"), 1u);
      return std::count(ids.begin(), ids.end(), id);
    };
    EXPECT_EQ(count({{"x" + token, false}}), 1);
    EXPECT_EQ(count({{"x" + token, true}}), 0);
    // Neither a part of the token nor a part of it around a template's text.
    for (size_t begin = 0; begin <= token.size(); ++begin) {
      for (size_t end = begin + 1; end <= token.size(); ++end) {
        EXPECT_EQ(count({{"x" + token.substr(0, begin), false},
                         {token.substr(begin, end - begin), true},
                         {token.substr(end) + "y", false}}),
                  0)
            << begin << " " << end;
      }
    }
    EXPECT_EQ(count({{"x", true}, {token, false}, {token, true}, {token, false}}), 2);
  }
}

TEST(Tokenizer, NoContentMakesAnAddedTokenOfTheNormalizedText) {
  const auto tokenizer = LoadTiny("added");
  ASSERT_NE(tokenizer, nullptr);
  const std::string token = "cafe\u0301";  // matched as "café", after NFC
  const int32_t id = tokenizer->TokenToId(token).value();
  EXPECT_THAT(SegmentIds(*tokenizer, {{"a " + token, false}}), testing::Contains(id));
  EXPECT_THAT(SegmentIds(*tokenizer, {{"a caf", false}, {"e\u0301", true}}),
              testing::Not(testing::Contains(id)));
  EXPECT_THAT(SegmentIds(*tokenizer, {{"e\u0301", true}, {" " + token, false}}),
              testing::Contains(id));
  // The accent alone came from a content, and joined the template's letter.
  EXPECT_THAT(SegmentIds(*tokenizer, {{"a cafe", false}, {"\u0301", true}}),
              testing::Not(testing::Contains(id)));
}

TEST(Tokenizer, TokenBytesAreWhatDecodeAppends) {
  const auto lossy = [](const std::string& bytes) {
    std::string text;
    utf8::AppendLossy(bytes, &text);
    return text;
  };
  for (const char* name : {"gpt2", "added", "bert", "bert_cased", "bert_added", "vanishing"}) {
    const auto tokenizer = LoadTiny(name);
    ASSERT_NE(tokenizer, nullptr);
    const std::string first = tokenizer->TokenBytes(100, true);
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      const std::vector<int32_t> ids = {100, id};
      ASSERT_EQ(lossy(tokenizer->TokenBytes(id, true)),
                tokenizer->Decode(std::span(ids).subspan(1), false).value())
          << name << " " << id;
      ASSERT_EQ(lossy(first + tokenizer->TokenBytes(id, false)),
                tokenizer->Decode(ids, false).value())
          << name << " " << id;
    }
  }
}

TEST(Tokenizer, FindsEachTokenByItsSpelling) {
  const auto tokenizer = LoadTiny("bert_added");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_TRUE(tokenizer->IsSpecial(tokenizer->TokenToId("[CLS]").value()));
  EXPECT_FALSE(tokenizer->IsSpecial(tokenizer->TokenToId("##s").value()));
  EXPECT_TRUE(tokenizer->TokenToId("<lr>").has_value());
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer->TokenToId("\xFF"), std::nullopt);
}

TEST(Tokenizer, ReadsTheNamedTokensOfTokenizerConfig) {
  HuggingFaceTokenizer files = golden::TinyFiles("gpt2");
  files.tokenizer_config_json =
      R"({"model_max_length": 1000000000000000019884624838656, "bos_token": "<|im_start|>",
          "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}})";
  const auto tokenizer = Tokenizer::Make(files);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), (*tokenizer)->TokenToId("<|im_start|>"));
  EXPECT_EQ((*tokenizer)->eos_id(), (*tokenizer)->TokenToId("<|im_end|>"));
  files.tokenizer_config_json = R"({"bos_token": null, "eos_token": "not in the vocabulary"})";
  const auto without = Tokenizer::Make(files);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ((*without)->bos_id(), std::nullopt);
  EXPECT_EQ((*without)->eos_id(), std::nullopt);
}

// A vocabulary large enough that the allocator's own bytes do not count.
GgufTokenizer LargeFields() {
  GgufTokenizer fields = golden::TinyAsGguf("smollm", "smollm");
  const auto letters = [](int i) {
    std::string text;
    for (; i > 0; i /= 26) text.push_back(static_cast<char>('a' + i % 26));
    return text;
  };
  for (int i = 1; i < 60000; ++i) {
    fields.tokens.push_back(absl::StrCat("Ġunreachable", letters(i)));
    fields.token_types.push_back(1);
  }
  return fields;
}

TEST(Tokenizer, CountsItsMemoryWithinOnePercent) {
  const GgufTokenizer fields = LargeFields();
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<int64_t>(info.uordblks + info.hblkhd);
  };
  {
    const int64_t before = in_use();
    const std::unique_ptr<char[]> probe(new char[1 << 20]);
    probe[0] = 1;
    if (in_use() - before < 1 << 20) GTEST_SKIP() << "this build's allocator does not count";
  }
  const int64_t before = in_use();
  auto tokenizer = Tokenizer::Make(fields);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const int64_t used = in_use() - before;
  const int64_t counted = (*tokenizer)->MemoryBytes();
  EXPECT_GT(counted, 1 << 20);
  EXPECT_NEAR(static_cast<double>(counted), static_cast<double>(used),
              0.01 * static_cast<double>(used));
}

TEST(Tokenizer, IsSafeToUseFromManyThreads) {
  const auto tokenizer = LoadTiny("qwen2");
  ASSERT_NE(tokenizer, nullptr);
  std::vector<std::vector<std::vector<int32_t>>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] {
      for (const std::string& text : golden::Corpus()) result.push_back(Ids(*tokenizer, text));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

}  // namespace
}  // namespace nibble
