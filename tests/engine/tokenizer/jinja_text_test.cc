// Marks survive what Python does to strings, and searching is right and linear.
#include "engine/tokenizer/jinja_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace nibble::jinja {
namespace {

using ::testing::ElementsAre;

// "a[b]c": what is in brackets is content.
Text FromMarked(const std::string& marked) {
  Text text;
  bool content = false;
  for (const char c : marked) {
    if (c == '[' || c == ']') {
      content = c == '[';
    } else {
      text.Append(std::string(1, c), content);
    }
  }
  return text;
}

std::string ToMarked(const Text& text) {
  std::string marked = text.bytes();
  for (auto span = text.content().rbegin(); span != text.content().rend(); ++span) {
    marked.insert(span->end, "]");
    marked.insert(span->begin, "[");
  }
  return marked;
}

std::vector<std::string> ToMarked(const std::vector<Text>& texts) {
  std::vector<std::string> marked;
  for (const Text& text : texts) marked.push_back(ToMarked(text));
  return marked;
}

TEST(Text, MergesMarksThatTouch) {
  Text text;
  text.Append("a");
  text.Append("b", true);
  text.Append("", true);
  text.Append("c", true);
  text.Append(Text("d", true));
  text.Append("e");
  EXPECT_EQ(ToMarked(text), "a[bcd]e");
  EXPECT_EQ(text.content().size(), 1u);
  EXPECT_TRUE(Text("", true).content().empty());
}

TEST(Text, CutsMarksWithTheText) {
  const Text text = FromMarked("ab[cd]ef[gh]");
  EXPECT_EQ(ToMarked(Substring(text, 0, 8)), "ab[cd]ef[gh]");
  EXPECT_EQ(ToMarked(Substring(text, 3, 7)), "[d]ef[g]");
  EXPECT_EQ(ToMarked(Substring(text, 4, 6)), "ef");
  EXPECT_EQ(ToMarked(Substring(text, 2, 4)), "[cd]");
  EXPECT_EQ(ToMarked(Substring(text, 3, 3)), "");
}

TEST(Text, AppendsCutsLikeAByteByByteModel) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    Text text;
    std::vector<bool> marks;
    for (int i = 0; i < 20; ++i) {
      const bool content = random() % 2 == 0;
      const size_t size = random() % 3;
      text.Append(std::string(size, 'x'), content);
      marks.insert(marks.end(), size, content);
    }
    const size_t begin = random() % (marks.size() + 1);
    const size_t end = begin + random() % (marks.size() - begin + 1);
    Text prefixed("y", true);
    prefixed.Append(text, begin, end);
    std::vector<bool> got(prefixed.bytes().size());
    size_t previous_end = 0;
    for (const Text::Span& span : prefixed.content()) {
      ASSERT_LT(span.begin, span.end);
      ASSERT_TRUE(span.begin == 0 || span.begin > previous_end);
      previous_end = span.end;
      for (size_t i = span.begin; i < span.end; ++i) got[i] = true;
    }
    std::vector<bool> want = {true};
    want.insert(want.end(), marks.begin() + static_cast<ptrdiff_t>(begin),
                marks.begin() + static_cast<ptrdiff_t>(end));
    ASSERT_EQ(got, want);
  }
}

TEST(CharReader, GivesEachCharacterItsMark) {
  Text text("é");
  text.Append("世\xff", true);
  CharReader reader(text);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.code_point(), U'é');
  EXPECT_FALSE(reader.is_content());
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.code_point(), U'世');
  EXPECT_TRUE(reader.is_content());
  EXPECT_EQ(reader.begin(), 2u);
  EXPECT_EQ(reader.end(), 5u);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.code_point(), char32_t{0xDCFF});
  EXPECT_FALSE(reader.Next());
}

TEST(Characters, CountInvalidBytesOneByOne) {
  EXPECT_EQ(CountChars("aé世\U0001f600"), 4);
  EXPECT_EQ(CountChars("\xff\xc3(\xe2\x80"), 5);
  EXPECT_EQ(CharOffset("aé世x", 3), 6u);
  EXPECT_EQ(CharOffset("aé", 9), 3u);
  std::string bytes;
  AppendChar(U'é', &bytes);
  AppendChar(char32_t{0xDCFF}, &bytes);
  EXPECT_EQ(bytes, "é\xff");
}

TEST(Searcher, AgreesWithStringFind) {
  std::mt19937 random(5);
  const auto text = [&random](size_t max_size) {
    std::string result(random() % (max_size + 1), 'a');
    for (char& c : result) c = static_cast<char>('a' + random() % 2);
    return result;
  };
  for (int round = 0; round < 20'000; ++round) {
    const std::string haystack = text(30);
    const std::string needle = text(6);
    const size_t from = random() % 32;
    ASSERT_EQ(Searcher(needle).Find(haystack, from), haystack.find(needle, from))
        << haystack << " " << needle << " " << from;
  }
}

TEST(Searcher, StaysLinear) {
  const std::string text(4'000'000, 'a');
  const std::string what = std::string(2'000'000, 'a') + "b";
  EXPECT_EQ(Searcher(what).Find(text), std::string::npos);
  EXPECT_EQ(CountOccurrences(text, "aa"), 2'000'000);
  EXPECT_EQ(CountOccurrences("abc", ""), 4);
}

TEST(TextOperations, KeepMarks) {
  EXPECT_EQ(ToMarked(Strip(FromMarked(" [ a ] "), nullptr, Side::kBoth)), "[a]");
  EXPECT_EQ(ToMarked(Strip(FromMarked(" [ a ] "), nullptr, Side::kLeft)), "[a ] ");
  EXPECT_EQ(ToMarked(Strip(FromMarked(" [ a ] "), nullptr, Side::kRight)), " [ a]");
  EXPECT_EQ(ToMarked(Strip(FromMarked(" [ ] "), nullptr, Side::kBoth)), "");
  EXPECT_THAT(ToMarked(Split(FromMarked("a,[b,c],"), ",", -1)), ElementsAre("a", "[b]", "[c]", ""));
  EXPECT_THAT(ToMarked(SplitFromRight(FromMarked("a,[b,c]"), ",", 1)), ElementsAre("a,[b]", "[c]"));
  EXPECT_THAT(ToMarked(SplitWords(FromMarked(" a[b c] d "), 1)), ElementsAre("a[b]", "[c] d "));
  EXPECT_THAT(ToMarked(SplitLines(FromMarked("a[\nb]\nc"), true)),
              ElementsAre("a[\n]", "[b]\n", "c"));
  EXPECT_EQ(ToMarked(Replace(FromMarked("[axb]x"), "x", FromMarked("1[2]"), -1)), "[a]1[2b]1[2]");
  EXPECT_EQ(ToMarked(Upper(FromMarked("a[b]c"))), "A[B]C");
  EXPECT_EQ(ToMarked(Title(FromMarked("ab[c d]e"))), "Ab[c D]e");
}

TEST(TextOperations, FindASeparatorThatSpansContentAndTemplate) {
  EXPECT_THAT(ToMarked(Split(FromMarked("a<[/>b]"), "</>", -1)), ElementsAre("a", "[b]"));
}

}  // namespace
}  // namespace nibble::jinja
