#include "engine/tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

std::string Lossy(std::string_view text) {
  std::string out;
  utf8::AppendLossy(text, &out);
  return out;
}

TEST(Utf8, RoundTripsEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    utf8::Append(c, &text);
    ASSERT_EQ(utf8::FindInvalid(text), utf8::kNone) << static_cast<uint32_t>(c);
    ASSERT_TRUE(utf8::Decode(text, 0).code == c) << static_cast<uint32_t>(c);
    ASSERT_EQ(utf8::Decode(text, 0).length, text.size());
    ASSERT_TRUE(utf8::DecodeBefore(text, text.size()).code == c) << static_cast<uint32_t>(c);
  }
}

TEST(Utf8, FindsTheFirstByteThatIsInvalid) {
  EXPECT_EQ(utf8::FindInvalid("abc"), utf8::kNone);
  EXPECT_EQ(utf8::FindInvalid("ab\xFFx"), 2u);
  EXPECT_EQ(utf8::FindInvalid("\xC3"), 0u);
  EXPECT_EQ(utf8::FindInvalid("\xC3\xA9\x80"), 2u);
  EXPECT_EQ(utf8::FindInvalid("\xC0\xAF"), 0u);          // overlong
  EXPECT_EQ(utf8::FindInvalid("x\xE0\x9F\xBF"), 1u);     // overlong
  EXPECT_EQ(utf8::FindInvalid("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(utf8::FindInvalid("\xF4\x90\x80\x80"), 0u);  // past U+10FFFF
  EXPECT_EQ(utf8::FindInvalid("\xF5\x80\x80\x80"), 0u);
}

// As Unicode recommends and Rust's from_utf8_lossy does: one U+FFFD for each maximal subpart.
TEST(Utf8, ReplacesEachMaximalBrokenStretchOnce) {
  EXPECT_EQ(Lossy("Hello \xF0\x90\x80World"), "Hello \uFFFDWorld");
  EXPECT_EQ(Lossy("\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "\uFFFD\uFFFD\uFFFD\x62\uFFFD\x63\uFFFD\uFFFD\x64");
  EXPECT_EQ(Lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Lossy("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(Lossy("é\xE2\x82"), "é\uFFFD");
  EXPECT_EQ(Lossy(""), "");
}

TEST(Utf8, KnowsWhichBrokenEndMayStillBecomeACharacter) {
  EXPECT_TRUE(utf8::Scan("\xF0\x9F\x98", 0).open);
  EXPECT_EQ(utf8::Scan("\xF0\x9F\x98", 0).length, 3u);
  EXPECT_FALSE(utf8::Scan("\xF0\x8F", 0).open);
  EXPECT_FALSE(utf8::Scan("\x80", 0).open);
  EXPECT_FALSE(utf8::Scan("\xC3z", 0).open);
  EXPECT_TRUE(utf8::Scan("\xC3\xA9", 0).valid);
}

}  // namespace
}  // namespace nibble
