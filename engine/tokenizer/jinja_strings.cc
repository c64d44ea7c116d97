// Python's escapes: \n and friends, octal, \x, \u, \U; an unknown one stays as it is written.
#include "engine/tokenizer/jinja_strings.h"

#include <cstdint>

#include "absl/strings/ascii.h"
#include "engine/tokenizer/jinja_text.h"

namespace nibble::jinja {
namespace {

// The value of `count` hexadecimal digits at the start of `text`, or -1.
int64_t Hex(std::string_view text, size_t count) {
  if (text.size() < count) return -1;
  int64_t value = 0;
  for (const char c : text.substr(0, count)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return -1;
    value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return value;
}

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// \x41, \u0041, \U00000041: the escape's letter is at text[0]. Returns how many bytes it took.
size_t UnescapeHex(std::string_view text, std::string* out, std::string* error) {
  const size_t digits = text[0] == 'x' ? 2 : text[0] == 'u' ? 4 : 8;
  const int64_t code_point = Hex(text.substr(1), digits);
  if (code_point < 0 || code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) {
    *error = "an escape that is no character in a string";
    return 0;
  }
  AppendChar(static_cast<char32_t>(code_point), out);
  return 1 + digits;
}

size_t UnescapeOctal(std::string_view text, std::string* out) {
  size_t length = 0;
  char32_t code_point = 0;
  for (; length < 3 && length < text.size() && IsOctal(text[length]); ++length) {
    code_point = code_point * 8 + static_cast<char32_t>(text[length] - '0');
  }
  AppendChar(code_point, out);
  return length;
}

}  // namespace

std::string Unescape(std::string_view literal, std::string* text) {
  static constexpr std::string_view kLetters = "\\'\"abfnrtv";
  static constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
  std::string error;
  for (size_t i = 0; i < literal.size() && error.empty();) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      text->push_back(literal[i++]);
      continue;
    }
    const char c = literal[++i];
    const size_t known = kLetters.find(c);
    if (known != std::string_view::npos) {
      text->push_back(kMeanings[known]);
      ++i;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      i += UnescapeHex(literal.substr(i), text, &error);
    } else if (IsOctal(c)) {
      i += UnescapeOctal(literal.substr(i), text);
    } else if (c == 'N') {
      error = "\\N{name}, which is not supported, in a string";
    } else if (c == '\n') {
      ++i;
    } else {
      text->push_back('\\');
    }
  }
  return error;
}

}  // namespace nibble::jinja
