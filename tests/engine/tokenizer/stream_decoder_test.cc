#include "engine/tokenizer/stream_decoder.h"

#include <gmock/gmock.h>

#include <random>

#include "engine/tokenizer/utf8.h"
#include "tests/engine/tokenizer/golden.h"

namespace nibble {
namespace {

using golden::LoadTiny;

std::vector<int32_t> Bytes(const Tokenizer& tokenizer, const std::vector<std::string>& spelled) {
  std::vector<int32_t> ids;
  for (const std::string& token : spelled) ids.push_back(tokenizer.TokenToId(token).value());
  return ids;
}

TEST(StreamDecoder, NeverEmitsHalfACharacter) {
  const auto tokenizer = LoadTiny("gpt2");
  ASSERT_NE(tokenizer, nullptr);
  StreamDecoder decoder(tokenizer.get(), false);
  const std::vector<int32_t> glyph = Bytes(*tokenizer, {"ð", "Ł", "ĺ", "Ģ"});  // 😀 by bytes
  EXPECT_EQ(decoder.Push(glyph[0]), "");
  EXPECT_EQ(decoder.Push(glyph[1]), "");
  EXPECT_EQ(decoder.Push(glyph[2]), "");
  EXPECT_EQ(decoder.Push(glyph[3]), "😀");
  EXPECT_EQ(decoder.Flush(), "");
}

TEST(StreamDecoder, ReplacesBytesThatCanNoLongerBecomeACharacterAtOnce) {
  const auto tokenizer = LoadTiny("gpt2");
  ASSERT_NE(tokenizer, nullptr);
  StreamDecoder decoder(tokenizer.get(), false);
  const std::vector<int32_t> ids = Bytes(*tokenizer, {"ð", "Ł", "a", "ð", "Ģ", "ĺ"});
  EXPECT_EQ(decoder.Push(ids[0]), "");
  EXPECT_EQ(decoder.Push(ids[1]), "");
  EXPECT_EQ(decoder.Push(ids[2]), "\uFFFDa");
  EXPECT_EQ(decoder.Push(ids[3]), "");
  EXPECT_EQ(decoder.Push(ids[4]), "\uFFFD\uFFFD");  // F0 80 begins nothing
  EXPECT_EQ(decoder.Push(ids[5]), "\uFFFD");
  EXPECT_EQ(decoder.Push(ids[0]), "");
  EXPECT_EQ(decoder.Flush(), "\uFFFD");
  EXPECT_EQ(decoder.Flush(), "");
}

TEST(StreamDecoder, GivesWhatDecodeGivesForAnyIds) {
  for (const char* name : {"gpt2", "qwen2", "added", "bert", "bert_added"}) {
    const auto tokenizer = LoadTiny(name);
    ASSERT_NE(tokenizer, nullptr);
    std::mt19937 random(5);
    for (int i = 0; i < 2000; ++i) {
      const bool skip = i % 2 == 0;
      StreamDecoder decoder(tokenizer.get(), skip);
      std::vector<int32_t> ids;
      std::string text;
      for (size_t length = random() % 24; ids.size() < length;) {
        // Low ids are mostly single bytes, which make broken characters.
        const uint32_t range = static_cast<uint32_t>(tokenizer->vocab_size());
        ids.push_back(static_cast<int32_t>(random() % (random() % 2 == 0 ? 260 : range)));
        const std::string part = decoder.Push(ids.back());
        ASSERT_EQ(utf8::FindInvalid(part), utf8::kNone);
        text += part;
      }
      text += decoder.Flush();
      ASSERT_EQ(text, tokenizer->Decode(ids, skip).value()) << name;
    }
  }
}

TEST(StreamDecoder, SkipsSpecialTokensAndCountsThemNotAsTheFirst) {
  const auto tokenizer = LoadTiny("bert");
  ASSERT_NE(tokenizer, nullptr);
  const int32_t cls = tokenizer->TokenToId("[CLS]").value();
  const int32_t a = tokenizer->TokenToId("a").value();
  StreamDecoder skipping(tokenizer.get(), true);
  EXPECT_EQ(skipping.Push(cls), "");
  EXPECT_EQ(skipping.Push(a), "a");
  EXPECT_EQ(skipping.Push(a), " a");
  StreamDecoder keeping(tokenizer.get(), false);
  EXPECT_EQ(keeping.Push(cls), "[CLS]");
  EXPECT_EQ(keeping.Push(a), " a");
}

TEST(StreamDecoder, IsSilentWithoutATokenizer) {
  StreamDecoder decoder(nullptr, true);
  EXPECT_EQ(decoder.Push(123456), "");
  EXPECT_EQ(decoder.Flush(), "");
}

}  // namespace
}  // namespace nibble
