// A text on its way through the tokenizer, whose every byte knows which bytes of the caller's text
// it came from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/utf8.h"

namespace nibble {

// Bytes [begin, end) of the caller's text: always whole characters.
struct Origin {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// A view. Without origins it is a part of the caller's own text that begins at `base`, or a text
// that nobody asked to trace, whose OriginOf means nothing.
struct TracedText {
  std::string_view text;
  const Origin* origins = nullptr;  // one for each byte of text
  uint32_t base = 0;

  TracedText Slice(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), origins == nullptr ? nullptr : origins + begin,
            base + static_cast<uint32_t>(begin)};
  }
  // Of bytes [begin, end), begin < end; half a character counts as the whole.
  Origin OriginOf(size_t begin, size_t end) const {
    if (origins != nullptr) return {origins[begin].begin, origins[end - 1].end};
    while (utf8::IsContinuation(text[begin])) --begin;
    while (end < text.size() && utf8::IsContinuation(text[end])) ++end;
    return {base + static_cast<uint32_t>(begin), base + static_cast<uint32_t>(end)};
  }
};

struct TracedBuffer {
  std::string text;
  std::vector<Origin> origins;  // empty: not traced

  TracedText View() const { return {text, origins.empty() ? nullptr : origins.data(), 0}; }
};

struct TracedCharacter {
  char32_t code = 0;
  Origin origin;
};

// The characters of a text, and back. traced: whether anybody will ask for origins.
std::vector<TracedCharacter> ToCharacters(const TracedText& in, bool traced);
void ToText(const std::vector<TracedCharacter>& characters, bool traced, TracedBuffer* out);

}  // namespace nibble
