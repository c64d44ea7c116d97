#include "engine/tokenizer/added_tokens.h"

#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

using testing::ElementsAre;

bool Always(size_t, size_t) { return true; }

std::vector<std::string> Split(const AddedTokens& tokens, const std::string& text,
                               AddedTokens::Accept accept = Always) {
  std::vector<std::string> parts;
  tokens.Split(text, accept, [&](int32_t id, size_t begin, size_t end) {
    parts.push_back(absl::StrCat(id, ":", text.substr(begin, end - begin)));
  });
  return parts;
}

TEST(AddedTokens, MatchTheLeftmostAndOfThoseTheLongest) {
  const AddedTokens tokens({{"<a>", 1}, {"<a><b>", 2}, {"<b>", 3}, {"b><", 4}});
  EXPECT_THAT(Split(tokens, "x<a><b><a>y"), ElementsAre("-1:x", "2:<a><b>", "1:<a>", "-1:y"));
  EXPECT_THAT(Split(tokens, "<b><a"), ElementsAre("3:<b>", "-1:<a"));
  EXPECT_THAT(Split(tokens, "b><b>"), ElementsAre("4:b><", "-1:b>"));
  EXPECT_THAT(Split(tokens, ""), ElementsAre());
}

TEST(AddedTokens, TakeAShorterTokenWhenTheLongerIsNotAccepted) {
  const AddedTokens tokens({{"<a>", 1}, {"<a>!", 2}});
  EXPECT_THAT(Split(tokens, "<a>!", [](size_t, size_t end) { return end <= 3; }),
              ElementsAre("1:<a>", "-1:!"));
  EXPECT_THAT(Split(tokens, "<a>!", [](size_t begin, size_t) { return begin > 0; }),
              ElementsAre("-1:<a>!"));
}

TEST(AddedTokens, SingleWordsStandBetweenNoWordCharacters) {
  const AddedTokens tokens({{.content = "the", .id = 1, .single_word = true}});
  EXPECT_THAT(Split(tokens, "the,the"), ElementsAre("1:the", "-1:,", "1:the"));
  EXPECT_THAT(Split(tokens, "then ethe éthe the_"), ElementsAre("-1:then ethe éthe the_"));
}

TEST(AddedTokens, StripWhiteSpaceOnTheSidesTheySay) {
  const AddedTokens tokens({{.content = "<l>", .id = 1, .strip_left = true},
                            {.content = "<r>", .id = 2, .strip_right = true}});
  EXPECT_THAT(Split(tokens, "a \u00a0<l> b"), ElementsAre("-1:a", "1: \u00a0<l>", "-1: b"));
  EXPECT_THAT(Split(tokens, "a <r>\n\tb"), ElementsAre("-1:a ", "2:<r>\n\t", "-1:b"));
  EXPECT_THAT(Split(tokens, "<r>  <l>"), ElementsAre("2:<r>  ", "1:<l>"));
}

}  // namespace
}  // namespace nibble
