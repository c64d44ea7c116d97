// The goldens compare the scanners with a regex engine; here are the claims that are easy to read.
#include "engine/tokenizer/split_pattern.h"

#include <gmock/gmock.h>

#include "engine/tokenizer/pre_tokenizer.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using Pieces = std::vector<std::string>;

Pieces Split(const std::vector<SplitStep>& steps, std::string_view text) {
  Pieces pieces;
  PreTokenizer(steps).Split({text, nullptr, 0}, true,
                            [&](const TracedText& piece) { pieces.emplace_back(piece.text); });
  return pieces;
}
Pieces Split(Scanner scanner, std::string_view text) { return Split({{.scanner = scanner}}, text); }

TEST(SplitPattern, Gpt2KeepsOneSpaceForTheNextWord) {
  EXPECT_THAT(Split(ScanGpt2, "  a   1 !\n x"),
              ElementsAre(" ", " a", "  ", " 1", " !", "\n", " x"));
  EXPECT_THAT(Split(ScanGpt2, "it's IT'S"), ElementsAre("it", "'s", " IT", "'", "S"));
  EXPECT_THAT(Split(ScanGpt2, "a  "), ElementsAre("a", "  "));
}

TEST(SplitPattern, Llama3TakesThreeDigitsAndQwenOne) {
  EXPECT_THAT(Split(ScanLlama3, "12345"), ElementsAre("123", "45"));
  EXPECT_THAT(Split(ScanQwen2, "12345"), ElementsAre("1", "2", "3", "4", "5"));
  EXPECT_THAT(Split(ScanLlama3, "IT'S'ſx"), ElementsAre("IT", "'S", "'ſ", "x"));
  EXPECT_THAT(Split(ScanLlama3, "a \n \n  b\r\n"), ElementsAre("a", " \n \n", " ", " b", "\r\n"));
}

TEST(SplitPattern, DeepSeekLeavesControlsBetweenItsMatches) {
  EXPECT_THAT(Split(ScanDeepSeek, "a\x01\x02.b"), ElementsAre("a", "\x01\x02", ".b"));
  EXPECT_THAT(Split({{.scanner = ScanDeepSeek, .keep_gaps = false}}, "a\x01\x02.b"),
              ElementsAre("a", ".b"));
  EXPECT_THAT(Split(ScanHanAndKana, "a中かカb"), ElementsAre("a", "中かカ", "b"));
}

TEST(SplitPattern, O200kSplitsAtTheCaseOfLetters) {
  EXPECT_THAT(Split(ScanO200k, "camelCase HTTPServer don'T"),
              ElementsAre("camel", "Case", " HTTPServer", " don'T"));
  EXPECT_THAT(Split(ScanTekken, "don't"), ElementsAre("don", "'t"));
  EXPECT_THAT(Split(ScanTekken, "ABC\u0301DEF"), ElementsAre("ABC\u0301", "DEF"));
  EXPECT_THAT(Split(ScanO200k, "//\n/a"), ElementsAre("//\n/", "a"));
}

TEST(SplitPattern, AStepSeesNoFurtherThanItsPiece) {
  const std::vector<SplitStep> smollm = {{.scanner = ScanNumericCharacter}, {.scanner = ScanGpt2}};
  EXPECT_THAT(Split(smollm, "a  12"), ElementsAre("a", "  ", "1", "2"));
  EXPECT_THAT(Split({{.scanner = ScanNumericRun}, {.add_prefix_space = true}}, "a12b"),
              ElementsAre(" a", " 12", " b"));
}

TEST(SplitPattern, AreFoundByTheirExactTextOnly) {
  EXPECT_EQ(FindScanner(R"(\p{N}{1,3})"), &ScanThreeNumbers);
  const std::string escaped =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
      R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(FindScanner(escaped), &ScanQwen2);
  std::string raw = escaped;  // as DeepSeek's file has it
  for (size_t at; (at = raw.find(R"(\r\n)")) != std::string::npos;) raw.replace(at, 4, "\r\n");
  EXPECT_EQ(FindScanner(raw), &ScanQwen2);
  EXPECT_EQ(FindScanner(escaped + " "), nullptr);
  EXPECT_EQ(FindScanner(R"(\p{N}{1,4})"), nullptr);
  EXPECT_EQ(FindScanner(""), nullptr);
}

}  // namespace
}  // namespace nibble
