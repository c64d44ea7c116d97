// Every property and mapping of all 1,112,064 code points against Hugging Face's, by hash per block
// of 4096 (tests/oracle/unicode_tables.py writes both the table and the hashes).
#include "engine/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <sstream>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/canonical_form.h"
#include "tests/engine/tokenizer/golden.h"

namespace nibble {
namespace {

using golden::Fnv;

constexpr char32_t kBlock = 4096;

template <typename Visit>
void ForEachCodePoint(char32_t begin, const Visit& visit) {
  for (char32_t c = begin; c < begin + kBlock; ++c) {
    if (c < 0xD800 || c >= 0xE000) visit(c);
  }
}

std::string Hex(uint64_t hash) { return absl::StrCat(absl::Hex(hash, absl::kZeroPad16)); }

std::string TraitsHash(char32_t begin) {
  std::string bytes;
  ForEachCodePoint(begin, [&](char32_t c) {
    const uint32_t traits = unicode::Traits(c);
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<char>(traits >> shift & 0xFF));
    }
  });
  return Hex(Fnv(bytes));
}

template <typename Map>
std::string MappingHash(char32_t begin, const Map& map) {
  std::string lines;
  ForEachCodePoint(begin, [&](char32_t c) {
    std::vector<TracedCharacter> characters = {{c, {}}};
    map(&characters);
    if (c % kBlock != 0) lines.push_back('\n');
    for (const TracedCharacter& mapped : characters) utf8::Append(mapped.code, &lines);
  });
  return Hex(Fnv(lines));
}

void Lower(std::vector<TracedCharacter>* characters) {
  const char32_t c = characters->front().code;
  characters->front().code = unicode::ToLower(c);
  if (c == 0x130) characters->push_back({0x307, {}});  // the caller's, as the header says
}

TEST(Unicode, EqualsHuggingFaceOnEveryCodePoint) {
  std::istringstream golden(golden::ReadFile(golden::kFolder + "unicode.txt"));
  std::string line;
  std::getline(golden, line);
  int blocks = 0;
  while (std::getline(golden, line)) {
    std::istringstream fields(line);
    std::string begin_text, traits, nfc, nfd, lower;
    fields >> begin_text >> traits >> nfc >> nfd >> lower;
    const auto begin = static_cast<char32_t>(std::stoul(begin_text, nullptr, 16));
    SCOPED_TRACE(absl::StrCat("block U+", begin_text));
    EXPECT_EQ(TraitsHash(begin), traits);
    EXPECT_EQ(MappingHash(begin, ToNfc), nfc);
    EXPECT_EQ(MappingHash(begin, ToNfd), nfd);
    EXPECT_EQ(MappingHash(begin, Lower), lower);
    ++blocks;
  }
  EXPECT_EQ(blocks, 0x110);
}

TEST(Unicode, KnowsEachKindByAnExample) {
  EXPECT_EQ(unicode::Traits('A') & unicode::kLetter, unicode::kUpper);
  EXPECT_EQ(unicode::Traits(U'ǅ') & unicode::kLetter, unicode::kTitle);
  EXPECT_EQ(unicode::Traits(U'ʰ') & unicode::kLetter, unicode::kModifier);
  EXPECT_EQ(unicode::Traits(U'中') & unicode::kLetter, unicode::kOtherLetter);
  EXPECT_NE(unicode::Traits(0x301) & unicode::kMark, 0u);
  EXPECT_NE(unicode::Traits(U'½') & unicode::kNumber, 0u);
  EXPECT_NE(unicode::Traits(0x85) & unicode::kSpace, 0u);
  EXPECT_EQ(unicode::Traits(0x200B) & unicode::kSpace, 0u);
  EXPECT_EQ(unicode::Traits(0x10FFFF) & (unicode::kLetter | unicode::kSymbol), 0u);
}

}  // namespace
}  // namespace nibble
