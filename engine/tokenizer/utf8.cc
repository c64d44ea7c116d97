// Well-formed sequences are those of Unicode's table 3-7: no overlong forms, no surrogates, nothing
// past U+10FFFF.
#include "engine/tokenizer/utf8.h"

#include <simdjson.h>

namespace nibble::utf8 {
namespace {

struct Lead {
  uint32_t length = 0;              // 0: no character begins so
  uint8_t low = 0x80, high = 0xBF;  // range of the second byte
};

Lead Classify(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

}  // namespace

void Append(char32_t code, std::string* out) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
    return;
  }
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

Stretch Scan(std::string_view text, size_t at) {
  const Lead lead = Classify(static_cast<uint8_t>(text[at]));
  if (lead.length == 0) return {1, false, false};
  for (uint32_t i = 1; i < lead.length; ++i) {
    if (at + i == text.size()) return {i, false, true};
    const auto byte = static_cast<uint8_t>(text[at + i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {i, false, false};
  }
  return {lead.length, true, false};
}

size_t FindInvalid(std::string_view text) {
  if (simdjson::validate_utf8(text.data(), text.size())) return kNone;
  for (size_t at = 0; at < text.size();) {
    const Stretch stretch = Scan(text, at);
    if (!stretch.valid) return at;
    at += stretch.length;
  }
  return kNone;
}

void AppendLossy(std::string_view text, std::string* out) {
  size_t kept = 0;  // where the valid stretch that is not yet copied begins
  for (size_t at = 0; at < text.size();) {
    const Stretch stretch = Scan(text, at);
    if (!stretch.valid) {
      out->append(text, kept, at - kept);
      out->append("\uFFFD");
      kept = at + stretch.length;
    }
    at += stretch.length;
  }
  out->append(text, kept);
}

}  // namespace nibble::utf8
