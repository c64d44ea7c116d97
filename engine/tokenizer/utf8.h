// UTF-8, character by character. Knows no Unicode properties.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble::utf8 {

inline constexpr size_t kNone = static_cast<size_t>(-1);

struct Decoded {
  char32_t code = 0;
  uint32_t length = 0;  // bytes
};

// The character that begins at text[at]. text is valid UTF-8.
inline Decoded Decode(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const auto tail = [&](size_t i) { return static_cast<char32_t>(byte(i) & 0x3F); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | tail(1), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3};
  return {(lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

inline bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

// The character that ends at text[end - 1]; end > 0, text is valid UTF-8.
inline Decoded DecodeBefore(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (IsContinuation(text[at])) --at;
  return Decode(text, at);
}

void Append(char32_t code, std::string* out);

// Where the first byte is that no valid character begins with; kNone when text is valid.
size_t FindInvalid(std::string_view text);

// What stands at text[at], valid or not: a whole character, or the longest beginning of one that is
// broken off there (Unicode §3.9, "maximal subpart"; at least one byte).
struct Stretch {
  uint32_t length = 0;
  bool valid = false;
  bool open = false;  // not valid, but more bytes after the end of text could complete it
};
Stretch Scan(std::string_view text, size_t at);

// Appends text to out with every broken stretch replaced by U+FFFD.
void AppendLossy(std::string_view text, std::string* out);

}  // namespace nibble::utf8
