// The tokenizer's metadata of a GGUF file, through Checkpoint::Open.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "engine/loader/checkpoint.h"
#include "tests/engine/loader/tiny_models.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::GgufWriter;
using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::nibble::testing::TinyGguf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Mapped files outlive their directory entry, so the checkpoint stays good.
absl::StatusOr<std::unique_ptr<Checkpoint>> Open(std::function<void(GgufWriter&)> more) {
  const TempDir dir;
  return Checkpoint::Open(dir.Write("m.gguf", TinyGguf{{}, std::move(more)}.File()));
}

TEST(GgufTokenizer, CarriesTheMetadata) {
  const auto checkpoint = Open([](GgufWriter& w) {
    TinyGguf::AddTokenizer(w);
    w.AddU32("tokenizer.ggml.unknown_token_id", 0);
    w.AddU32("tokenizer.ggml.padding_token_id", 2);
    w.AddU32("tokenizer.ggml.eot_token_id", 5);
    w.AddBool("tokenizer.ggml.add_bos_token", true);
    w.AddText("tokenizer.chat_template", "{{ x }}");
  });
  ASSERT_THAT(checkpoint, IsOk());
  const auto& tokenizer = (*checkpoint)->gguf_tokenizer();
  ASSERT_TRUE(tokenizer.has_value());
  EXPECT_EQ(tokenizer->model, "gpt2");
  EXPECT_EQ(tokenizer->pre, "smollm");
  EXPECT_THAT(tokenizer->tokens, ElementsAre("<u>", "<s>", "</s>", "a", "b", "ab"));
  EXPECT_THAT(tokenizer->token_types, ElementsAre(2, 3, 3, 1, 1, 1));
  EXPECT_THAT(tokenizer->merges, ElementsAre("a b"));
  EXPECT_EQ(tokenizer->bos_id, 1);
  EXPECT_EQ(tokenizer->eos_id, 2);
  EXPECT_EQ(tokenizer->unk_id, 0);
  EXPECT_EQ(tokenizer->pad_id, 2);
  EXPECT_EQ(tokenizer->add_bos, true);
  EXPECT_FALSE(tokenizer->add_eos.has_value());
  EXPECT_EQ((*checkpoint)->bos_token, "<s>");
  EXPECT_EQ((*checkpoint)->eos_token, "</s>");
  EXPECT_EQ((*checkpoint)->chat_template(), "{{ x }}");
  EXPECT_THAT((*checkpoint)->config().generation.eos_token_ids, ElementsAre(2, 5));
}

TEST(GgufTokenizer, IsAbsentFromAModelOfTokenIds) {
  const auto bare = Open([](GgufWriter&) {});
  ASSERT_THAT(bare, IsOk());
  EXPECT_FALSE((*bare)->gguf_tokenizer().has_value());
  const auto none = Open([](GgufWriter& w) { w.AddText("tokenizer.ggml.model", "none"); });
  ASSERT_THAT(none, IsOk());
  EXPECT_FALSE((*none)->gguf_tokenizer().has_value());
}

TEST(GgufTokenizer, TakesMinusOneForNoToken) {
  const auto checkpoint = Open([](GgufWriter& w) {
    TinyGguf::AddTokenizer(w);
    w.AddU32("tokenizer.ggml.padding_token_id", 0xffffffff);
    w.AddField("tokenizer.ggml.unknown_token_id", 5, testing::RawBytes<int32_t>(-1));
  });
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_FALSE((*checkpoint)->gguf_tokenizer()->pad_id.has_value());
  EXPECT_FALSE((*checkpoint)->gguf_tokenizer()->unk_id.has_value());
}

TEST(GgufTokenizer, RefusesIdsAndCountsThatDisagree) {
  const auto inconsistent = [](const char* part) {
    return StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(part));
  };
  EXPECT_THAT(Open([](GgufWriter& w) {
                TinyGguf::AddTokenizer(w);
                w.AddU32("tokenizer.ggml.eot_token_id", 6);
              }),
              inconsistent("tokenizer.ggml.eot_token_id is 6, but tokenizer.ggml.tokens has 6"));
  EXPECT_THAT(Open([](GgufWriter& w) {
                w.AddText("tokenizer.ggml.model", "gpt2");
                w.AddTexts("tokenizer.ggml.tokens", std::vector<std::string>(11, "x"));
              }),
              inconsistent("has 11 tokens, the embedding has 10 rows"));
  EXPECT_THAT(Open([](GgufWriter& w) { w.AddText("tokenizer.ggml.model", "gpt2"); }),
              inconsistent("has 0 tokens"));
  EXPECT_THAT(Open([](GgufWriter& w) {
                w.AddText("tokenizer.ggml.model", "gpt2");
                w.AddTexts("tokenizer.ggml.tokens", {"a", "b"});
                w.AddInts("tokenizer.ggml.token_type", {1});
              }),
              inconsistent("token_type has 1 entries, tokenizer.ggml.tokens 2"));
}

TEST(GgufTokenizer, RefusesArraysAndFieldsOfTheWrongKind) {
  const auto lost = [](const char* part) {
    return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
  };
  EXPECT_THAT(Open([](GgufWriter& w) {
                w.AddText("tokenizer.ggml.model", "gpt2");
                w.AddInts("tokenizer.ggml.tokens", {1});
              }),
              lost("\"tokenizer.ggml.tokens\" is not an array of strings"));
  EXPECT_THAT(Open([](GgufWriter& w) {
                w.AddText("tokenizer.ggml.model", "gpt2");
                w.AddTexts("tokenizer.ggml.tokens", {"a"});
                w.AddTexts("tokenizer.ggml.token_type", {"1"});
              }),
              lost("\"tokenizer.ggml.token_type\" is not an array of 32-bit integers"));
  EXPECT_THAT(Open([](GgufWriter& w) { w.AddU32("tokenizer.ggml.model", 1); }),
              lost("\"tokenizer.ggml.model\" is 1, wanted a string"));
  EXPECT_THAT(Open([](GgufWriter& w) {
                TinyGguf::AddTokenizer(w);
                w.AddText("tokenizer.ggml.add_bos_token", "yes");
              }),
              lost("wanted true or false"));
}

}  // namespace
}  // namespace nibble
