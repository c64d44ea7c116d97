// What a code point is, as Hugging Face's `tokenizers` sees it: the library mixes several Unicode
// versions, so each property below is the answer of the part of it that is named.
#pragma once

#include <cstdint>

#include "engine/tokenizer/unicode_tables.h"
#include "engine/tokenizer/utf8.h"

namespace nibble::unicode {

// Bits of Traits. The first nine are general categories (Oniguruma's), at most one of them is set.
inline constexpr uint32_t kUpper = 1 << 0;        // Lu
inline constexpr uint32_t kLower = 1 << 1;        // Ll
inline constexpr uint32_t kTitle = 1 << 2;        // Lt
inline constexpr uint32_t kModifier = 1 << 3;     // Lm
inline constexpr uint32_t kOtherLetter = 1 << 4;  // Lo
inline constexpr uint32_t kMark = 1 << 5;         // M
inline constexpr uint32_t kNumber = 1 << 6;       // N
inline constexpr uint32_t kPunctuation = 1 << 7;  // P
inline constexpr uint32_t kSymbol = 1 << 8;       // S
inline constexpr uint32_t kSpace = 1 << 9;        // White_Space
inline constexpr uint32_t kNumeric = 1 << 10;     // Digits' idea of a number (Rust's)
inline constexpr uint32_t kWord = 1 << 11;        // \w of a single_word token's neighbours
inline constexpr uint32_t kBertPunct = 1 << 12;
inline constexpr uint32_t kBertRemoved = 1 << 13;   // by BertNormalizer's clean_text
inline constexpr uint32_t kBertMark = 1 << 14;      // Mn of its strip_accents
inline constexpr uint32_t kNfcSensitive = 1 << 15;  // NFC may change it or join it to its neighbour
inline constexpr uint32_t kNfcUnknown = 1 << 16;    // newer than the library's normalization tables
inline constexpr uint32_t kLetter = kUpper | kLower | kTitle | kModifier | kOtherLetter;

uint32_t FindTraits(char32_t c);
// The bits of any code point below 0x110000.
inline uint32_t Traits(char32_t c) { return c < 128 ? kAscii[c] : FindTraits(c); }

// A character of valid UTF-8 with its traits.
struct Character {
  char32_t code = 0;
  uint32_t length = 0;  // bytes
  uint32_t traits = 0;
};
inline Character CharacterAt(std::string_view text, size_t at) {
  const utf8::Decoded decoded = utf8::Decode(text, at);
  return {decoded.code, decoded.length, Traits(decoded.code)};
}

// The one-character lower case of c (Rust's); U+0130's second character, U+0307, is the caller's.
char32_t ToLower(char32_t c);

}  // namespace nibble::unicode
