// What Checkpoint::Open reads of the directory equals what it reads of the GGUF.
#include "engine/quantize/hugging_face_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/quantize/hugging_face_round_trip.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::GgufWriter;
using ::nibble::testing::IsOk;
using ::nibble::testing::OpenDirectoryOf;
using ::nibble::testing::OpenGguf;
using ::nibble::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTemplate[] = "{% for m in messages %}<s>\"{{ m['content'] }}\"\\n\n{% endfor %}é";

GgufTokenizer SmallTokenizer() {
  GgufTokenizer fields;
  fields.model = "gpt2";
  fields.pre = "smollm";
  fields.tokens = {"<u>", "<s>", "</s>", "a", "b", "ab", "<|eot|>"};
  fields.token_types = {2, 3, 3, 1, 1, 1, 3};
  fields.merges = {"a b"};
  fields.bos_id = 1;
  fields.eos_id = 2;
  fields.unk_id = 0;
  fields.pad_id = 6;
  fields.add_bos = true;
  return fields;
}

std::string TextOf(const std::vector<TextFile>& files, const std::string& name) {
  for (const TextFile& file : files) {
    if (file.name == name) return file.text;
  }
  ADD_FAILURE() << "no " << name;
  return "";
}

TEST(HuggingFaceTokenizerFiles, OpenAsTheGgufDoes) {
  const auto gguf = OpenGguf(10, [](GgufWriter& w) {
    testing::AddTokenizer(SmallTokenizer(), w);
    w.AddU32("tokenizer.ggml.eot_token_id", 6);
    w.AddText("tokenizer.chat_template", kTemplate);
  });
  const auto directory = OpenDirectoryOf(*gguf);
  ASSERT_NE(directory, nullptr);
  testing::ExpectSameShape(directory->config(), gguf->config());
  EXPECT_THAT(directory->config().generation.eos_token_ids, ElementsAre(2, 6));
  EXPECT_EQ(directory->chat_template(), kTemplate);
  EXPECT_EQ(directory->bos_token, "<s>");
  EXPECT_EQ(directory->eos_token, "</s>");
  ASSERT_TRUE(directory->hf_tokenizer().has_value());
  const auto tokenizer = Tokenizer::Make(*directory->hf_tokenizer());
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_EQ((*tokenizer)->bos_id(), 1);
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  EXPECT_THAT((*tokenizer)->Encode("ab<|eot|>", true)->ids, ElementsAre(1, 5, 6));
}

TEST(HuggingFaceTokenizerFiles, SayWhatTransformersNeedsToKnow) {
  const auto gguf = OpenGguf(10, [](GgufWriter& w) {
    testing::AddTokenizer(SmallTokenizer(), w);
    w.AddU32("tokenizer.ggml.eot_token_id", 6);
  });
  const auto files = HuggingFaceTokenizerFiles(*gguf);
  ASSERT_THAT(files, IsOk());
  ASSERT_EQ(files->size(), 3u);
  EXPECT_EQ(TextOf(*files, "tokenizer_config.json"), R"({
  "tokenizer_class": "PreTrainedTokenizerFast",
  "add_bos_token": true,
  "add_eos_token": false,
  "bos_token": "<s>",
  "eos_token": "</s>",
  "pad_token": "<|eot|>",
  "unk_token": "<u>",
  "clean_up_tokenization_spaces": false,
  "model_max_length": 32
}
)");
  EXPECT_EQ(TextOf(*files, "generation_config.json"), R"({
  "bos_token_id": 1,
  "eos_token_id": [2, 6],
  "pad_token_id": 6
}
)");
}

TEST(HuggingFaceTokenizerFiles, SayThatATokenIsAbsent) {
  GgufTokenizer fields = SmallTokenizer();
  fields.bos_id = fields.eos_id = fields.unk_id = fields.pad_id = std::nullopt;
  fields.add_bos.reset();
  const auto gguf = OpenGguf(10, [&](GgufWriter& w) { testing::AddTokenizer(fields, w); });
  const auto files = HuggingFaceTokenizerFiles(*gguf);
  ASSERT_THAT(files, IsOk());
  const std::string config = TextOf(*files, "tokenizer_config.json");
  for (const char* key : {"bos_token", "eos_token", "pad_token", "unk_token"}) {
    EXPECT_THAT(config, HasSubstr("\"" + std::string(key) + "\": null"));
  }
  EXPECT_THAT(config, HasSubstr("\"add_bos_token\": false"));
  EXPECT_NE(OpenDirectoryOf(*gguf), nullptr);
}

TEST(HuggingFaceTokenizerFiles, AreNoneForAModelOfTokenIds) {
  const auto files = HuggingFaceTokenizerFiles(*OpenGguf(10, [](GgufWriter&) {}));
  ASSERT_THAT(files, IsOk());
  EXPECT_TRUE(files->empty());
}

TEST(HuggingFaceTokenizerFiles, RefuseATokenizerOfAnotherKindByName) {
  GgufTokenizer fields = SmallTokenizer();
  fields.model = "llama";
  const auto gguf = OpenGguf(10, [&](GgufWriter& w) { testing::AddTokenizer(fields, w); });
  EXPECT_THAT(
      HuggingFaceTokenizerFiles(*gguf),
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("tokenizer.ggml.model \"llama\"")));
}

}  // namespace
}  // namespace nibble
