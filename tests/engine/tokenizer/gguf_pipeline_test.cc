#include "engine/tokenizer/gguf_pipeline.h"

#include <gmock/gmock.h>

#include "tests/engine/tokenizer/golden.h"

namespace nibble {
namespace {

using golden::TinyAsGguf;
using testing::HasSubstr;

std::string Refusal(const GgufTokenizer& fields, absl::StatusCode code) {
  const absl::Status status = Tokenizer::Make(fields).status();
  EXPECT_EQ(status.code(), code) << status;
  return std::string(status.message());
}

TEST(GgufPipeline, RefusesOtherModelsAndPreTokenizersByName) {
  GgufTokenizer fields = TinyAsGguf("smollm", "smollm");
  for (const char* pre : {"", "deepseek-llm", "falcon", "default", "smollm2"}) {
    fields.pre = pre;
    EXPECT_THAT(Refusal(fields, absl::StatusCode::kUnimplemented),
                HasSubstr(std::string("tokenizer.ggml.pre \"") + pre + "\""));
  }
  for (const char* model : {"llama", "bert", "t5", ""}) {
    fields.model = model;
    EXPECT_THAT(Refusal(fields, absl::StatusCode::kUnimplemented),
                HasSubstr(std::string("tokenizer.ggml.model \"") + model + "\""));
  }
}

TEST(GgufPipeline, AddsTheFirstTokenWhenTheMetadataOrThePipelineSaySo) {
  GgufTokenizer fields = TinyAsGguf("smollm", "smollm");
  fields.bos_id = 1;
  fields.eos_id = 2;
  const auto ids = [&] {
    auto tokenizer = Tokenizer::Make(fields);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return (*tokenizer)->Encode("a", true).value().ids;
  };
  EXPECT_EQ(ids().size(), 1u);
  fields.add_bos = true;
  EXPECT_EQ(ids().front(), 1);
  fields.add_eos = true;
  EXPECT_EQ(ids().back(), 2);
  fields.pre = "llama-bpe";
  fields.add_bos.reset();
  EXPECT_EQ(ids().front(), 1);
  fields.add_bos = false;
  EXPECT_NE(ids().front(), 1);
}

TEST(GgufPipeline, UserDefinedTokensAreFoundButNotSpecial) {
  GgufTokenizer fields = TinyAsGguf("smollm", "smollm");
  fields.tokens.push_back("<think>");
  fields.token_types.push_back(4);
  fields.tokens.push_back("<unused>");
  fields.token_types.push_back(5);
  const auto tokenizer = Tokenizer::Make(fields);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode("<think><|im_end|>", false).value().ids;
  const int32_t think = (*tokenizer)->TokenToId("<think>").value();
  const int32_t end = (*tokenizer)->TokenToId("<|im_end|>").value();
  EXPECT_THAT(ids, testing::ElementsAre(think, end));
  EXPECT_FALSE((*tokenizer)->IsSpecial(think));
  EXPECT_TRUE((*tokenizer)->IsSpecial(end));
  EXPECT_GT((*tokenizer)->Encode("<unused>", false).value().ids.size(), 1u);
}

TEST(GgufPipeline, RefusesBrokenMetadata) {
  const GgufTokenizer good = TinyAsGguf("smollm", "smollm");
  const auto refusal = [&](auto change) {
    GgufTokenizer fields = good;
    change(fields);
    return Refusal(fields, absl::StatusCode::kDataLoss);
  };
  EXPECT_THAT(refusal([](auto& f) { f.tokens.clear(), f.token_types.clear(), f.merges.clear(); }),
              HasSubstr("tokens is empty"));
  EXPECT_THAT(refusal([](auto& f) { f.tokens[9] = "\xFF"; }),
              HasSubstr("token 9 is not valid UTF-8"));
  EXPECT_THAT(refusal([](auto& f) { f.tokens[9] = f.tokens[10]; }), HasSubstr("has two ids"));
  EXPECT_THAT(refusal([](auto& f) { f.token_types.pop_back(); }), HasSubstr("token types"));
  EXPECT_THAT(refusal([](auto& f) { f.merges[3] = "a\xC0 b"; }), HasSubstr("merge 3"));
  EXPECT_THAT(refusal([](auto& f) { f.merges[3] = "ab"; }), HasSubstr("not two tokens"));
  EXPECT_THAT(refusal([](auto& f) { f.merges[3] = "a b c"; }), HasSubstr("not two tokens"));
  EXPECT_THAT(refusal([](auto& f) { f.merges[3] = "a nosuch"; }),
              HasSubstr("\"nosuch\" is not in the vocabulary"));
  EXPECT_THAT(refusal([](auto& f) { f.merges[3] = "# &"; }), HasSubstr("\"#&\" is not in"));
  EXPECT_THAT(refusal([](auto& f) { f.tokens[0] = "", f.token_types[0] = 3; }),
              HasSubstr("token 0 of type 3 has 0 bytes"));
  EXPECT_THAT(refusal([](auto& f) { f.bos_id = 1 << 20; }), HasSubstr("has id 1048576"));
  EXPECT_THAT(refusal([](auto& f) { f.eos_id = -1; }), HasSubstr("has id -1"));
  EXPECT_THAT(refusal([](auto& f) { f.add_bos = true; }), HasSubstr("without bos_token_id"));
  EXPECT_THAT(refusal([](auto& f) { f.add_eos = true; }), HasSubstr("without eos_token_id"));
}

}  // namespace
}  // namespace nibble
