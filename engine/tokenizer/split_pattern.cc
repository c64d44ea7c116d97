// Each function tries its expression's alternatives in order and gives what a backtracking engine
// gives; where that takes an argument, it stands beside the code.
#include "engine/tokenizer/split_pattern.h"

#include <array>

#include "absl/strings/str_replace.h"
#include "engine/tokenizer/unicode.h"

namespace nibble {
namespace {

using unicode::Character;
using unicode::CharacterAt;
using unicode::kLetter;
using unicode::kLower;
using unicode::kMark;
using unicode::kModifier;
using unicode::kNumber;
using unicode::kOtherLetter;
using unicode::kPunctuation;
using unicode::kSpace;
using unicode::kSymbol;
using unicode::kTitle;
using unicode::kUpper;

constexpr uint32_t kCaseless = kModifier | kOtherLetter | kMark;
constexpr uint32_t kUpperLike = kUpper | kTitle | kCaseless;  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
constexpr uint32_t kLowerLike = kLower | kCaseless;           // [\p{Ll}\p{Lm}\p{Lo}\p{M}]

bool IsNewline(char byte) { return byte == '\r' || byte == '\n'; }
bool IsLineBreak(const Character& c) { return c.code == '\r' || c.code == '\n'; }

// The end of the run of characters with any of these traits.
size_t SkipAny(std::string_view text, size_t at, uint32_t traits) {
  while (at < text.size()) {
    const Character c = CharacterAt(text, at);
    if ((c.traits & traits) == 0) break;
    at += c.length;
  }
  return at;
}

// The end of the run of characters with none of these traits.
size_t SkipNone(std::string_view text, size_t at, uint32_t traits) {
  while (at < text.size()) {
    const Character c = CharacterAt(text, at);
    if ((c.traits & traits) != 0) break;
    at += c.length;
  }
  return at;
}

// \p{N}{1,most}
size_t SkipNumbers(std::string_view text, size_t at, int most) {
  for (int i = 0; i < most && at < text.size(); ++i) {
    const Character c = CharacterAt(text, at);
    if ((c.traits & kNumber) == 0) break;
    at += c.length;
  }
  return at;
}

bool HasTrait(std::string_view text, size_t at, uint32_t traits) {
  return at < text.size() && (CharacterAt(text, at).traits & traits) != 0;
}

// 's|'t|'re|'ve|'m|'ll|'d. Without regard to case the long s, U+017F, is an s too.
size_t Contraction(std::string_view text, size_t at, bool any_case) {
  if (text[at] != '\'' || at + 1 >= text.size()) return at;
  const auto letter = [&](size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = letter(at + 1);
  const char second = letter(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
  if ((first == 'r' || first == 'v') && second == 'e') return at + 3;
  if (first == 'l' && second == 'l') return at + 3;
  if (any_case && text.substr(at + 1, 2) == "\u017F") return at + 3;
  return at;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at white space; without the first alternative unless `lines`.
//   \s* gives back until a line break can follow: the match ends after the run's last one.
//   (?!\S) gives one character back when the run ends before a character and has more than one.
size_t WhiteSpace(std::string_view text, size_t at, bool lines) {
  const size_t end = SkipAny(text, at, kSpace);
  if (lines) {
    for (size_t i = end; i > at; --i) {
      if (IsNewline(text[i - 1])) return i;
    }
  }
  if (end == text.size() || end == at) return end;
  const size_t shorter = end - utf8::DecodeBefore(text, end).length;
  return shorter > at ? shorter : end;
}

//  ?[^\s\p{L}\p{N}]+ and then any of `tail`
size_t Symbols(std::string_view text, size_t at, std::string_view tail) {
  const size_t begin = text[at] == ' ' ? at + 1 : at;
  size_t end = SkipNone(text, begin, kSpace | kLetter | kNumber);
  if (end == begin) return at;
  while (end < text.size() && tail.find(text[end]) != std::string_view::npos) ++end;
  return end;
}

// [^\r\n\p{L}\p{N}]?\p{L}+
size_t PrefixedLetters(std::string_view text, size_t at, const Character& c) {
  if ((c.traits & kLetter) != 0) return SkipAny(text, at, kLetter);
  if ((c.traits & kNumber) != 0 || IsLineBreak(c)) return at;
  const size_t letters = at + c.length;
  const size_t end = SkipAny(text, letters, kLetter);
  return end > letters ? end : at;
}

size_t ScanLlama(std::string_view text, size_t at, int most_digits) {
  if (const size_t end = Contraction(text, at, true); end > at) return end;
  const Character c = CharacterAt(text, at);
  if (const size_t end = PrefixedLetters(text, at, c); end > at) return end;
  if ((c.traits & kNumber) != 0) return SkipNumbers(text, at, most_digits);
  if (const size_t end = Symbols(text, at, "\r\n"); end > at) return end;
  return WhiteSpace(text, at, true);
}

size_t ScanOneNumber(std::string_view text, size_t at) { return SkipNumbers(text, at, 1); }

bool IsAsciiPunctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

size_t SkipAsciiLetters(std::string_view text, size_t at) {
  while (at < text.size() && ((text[at] | 32) >= 'a' && (text[at] | 32) <= 'z')) ++at;
  return at;
}

// [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+; a mark may be the first part or the second, to one effect.
size_t PrefixedLettersAndMarks(std::string_view text, size_t at, const Character& c) {
  if ((c.traits & (kLetter | kMark)) != 0) return SkipAny(text, at, kLetter | kMark);
  if ((c.traits & (kPunctuation | kSymbol)) != 0 || IsLineBreak(c)) return at;
  const size_t letters = at + c.length;
  const size_t end = SkipAny(text, letters, kLetter | kMark);
  return end > letters ? end : at;
}

//  ?[\p{P}\p{S}]+[\r\n]*
size_t PunctuationRun(std::string_view text, size_t at) {
  const size_t begin = text[at] == ' ' ? at + 1 : at;
  size_t end = SkipAny(text, begin, kPunctuation | kSymbol);
  if (end == begin) return at;
  while (end < text.size() && IsNewline(text[end])) ++end;
  return end;
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+
// If no lower-like character follows the upper-like run, the run gives back up to its last
// character that is lower-like too; what follows that in the run is capitals, so the match ends
// with it.
size_t CapitalsThenSmall(std::string_view text, size_t at) {
  size_t caseless_end = at;
  size_t end = at;
  while (end < text.size()) {
    const Character c = CharacterAt(text, end);
    if ((c.traits & kUpperLike) == 0) break;
    end += c.length;
    if ((c.traits & kCaseless) != 0) caseless_end = end;
  }
  const size_t small_end = SkipAny(text, end, kLowerLike);
  return small_end > end ? small_end : caseless_end;
}

// The two case-aware alternatives: first with and then without the optional character before them,
//   [^\r\n\p{L}\p{N}]?U*W+ | [^\r\n\p{L}\p{N}]?U+W*
// The second is only tried when the first fails, so no W follows its U+.
size_t CasedWord(std::string_view text, size_t at) {
  const Character c = CharacterAt(text, at);
  const bool may_prefix = (c.traits & (kLetter | kNumber)) == 0 && !IsLineBreak(c);
  const size_t after = at + c.length;
  if (may_prefix) {
    if (const size_t end = CapitalsThenSmall(text, after); end > after) return end;
  }
  if (const size_t end = CapitalsThenSmall(text, at); end > at) return end;
  if (may_prefix) {
    if (const size_t end = SkipAny(text, after, kUpperLike); end > after) return end;
  }
  return SkipAny(text, at, kUpperLike);
}

size_t ScanCased(std::string_view text, size_t at, bool contractions, int most_digits) {
  if (const size_t end = CasedWord(text, at); end > at) {
    return contractions && end < text.size() ? Contraction(text, end, true) : end;
  }
  if (HasTrait(text, at, kNumber)) return SkipNumbers(text, at, most_digits);
  if (const size_t end = Symbols(text, at, "\r\n/"); end > at) return end;
  return WhiteSpace(text, at, true);
}

struct KnownPattern {
  std::string_view regex;
  Scanner scanner;
};

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::array<KnownPattern, 9> kKnownPatterns = {{
    {kGpt2, ScanGpt2},
    {kLlama3, ScanLlama3},
    {kQwen2, ScanQwen2},
    {kDeepSeek, ScanDeepSeek},
    {kO200k, ScanO200k},
    {kTekken, ScanTekken},
    {R"(\p{N}{1,3})", ScanThreeNumbers},
    {R"(\p{N})", ScanOneNumber},
    {"[一-龥぀-ゟ゠-ヿ]+", ScanHanAndKana},
}};

}  // namespace

size_t ScanGpt2(std::string_view text, size_t at) {
  if (const size_t end = Contraction(text, at, false); end > at) return end;
  const size_t begin = text[at] == ' ' ? at + 1 : at;
  if (begin < text.size()) {
    const Character c = CharacterAt(text, begin);
    if ((c.traits & kLetter) != 0) return SkipAny(text, begin, kLetter);
    if ((c.traits & kNumber) != 0) return SkipAny(text, begin, kNumber);
    if ((c.traits & kSpace) == 0) return SkipNone(text, begin, kSpace | kLetter | kNumber);
  }
  return WhiteSpace(text, at, false);
}

size_t ScanLlama3(std::string_view text, size_t at) { return ScanLlama(text, at, 3); }
size_t ScanQwen2(std::string_view text, size_t at) { return ScanLlama(text, at, 1); }

size_t ScanThreeNumbers(std::string_view text, size_t at) { return SkipNumbers(text, at, 3); }

size_t ScanHanAndKana(std::string_view text, size_t at) {
  while (at < text.size()) {
    const utf8::Decoded c = utf8::Decode(text, at);
    const bool han = c.code >= 0x4E00 && c.code <= 0x9FA5;
    const bool kana = c.code >= 0x3040 && c.code <= 0x30FF;
    if (!han && !kana) break;
    at += c.length;
  }
  return at;
}

size_t ScanDeepSeek(std::string_view text, size_t at) {
  const Character c = CharacterAt(text, at);
  if (IsAsciiPunctuation(c.code)) {
    const size_t end = SkipAsciiLetters(text, at + 1);
    if (end > at + 1) return end;
  }
  if (const size_t end = PrefixedLettersAndMarks(text, at, c); end > at) return end;
  if (const size_t end = PunctuationRun(text, at); end > at) return end;
  return WhiteSpace(text, at, true);
}

size_t ScanO200k(std::string_view text, size_t at) { return ScanCased(text, at, true, 3); }
size_t ScanTekken(std::string_view text, size_t at) { return ScanCased(text, at, false, 1); }

size_t ScanNumericCharacter(std::string_view text, size_t at) {
  const Character c = CharacterAt(text, at);
  return (c.traits & unicode::kNumeric) != 0 ? at + c.length : at;
}

size_t ScanNumericRun(std::string_view text, size_t at) {
  return SkipAny(text, at, unicode::kNumeric);
}

size_t ScanSpace(std::string_view text, size_t at) { return SkipAny(text, at, kSpace); }

size_t ScanBertPunctuation(std::string_view text, size_t at) {
  const Character c = CharacterAt(text, at);
  return (c.traits & unicode::kBertPunct) != 0 ? at + c.length : at;
}

Scanner FindScanner(std::string_view regex) {
  const std::string escaped =
      absl::StrReplaceAll(std::string(regex), {{"\r", "\\r"}, {"\n", "\\n"}});
  for (const KnownPattern& known : kKnownPatterns) {
    if (known.regex == escaped) return known.scanner;
  }
  return nullptr;
}

}  // namespace nibble
