// The bytes that print as themselves in Latin-1 stand for themselves; the other 68 take the code
// points from U+0100 up, in order.
#include "engine/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "engine/tokenizer/utf8.h"

namespace nibble {
namespace {

constexpr bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<int16_t, 324> bytes{};  // by character; -1: none
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.bytes) byte = -1;
  char32_t next = 256;
  for (int16_t byte = 0; byte < 256; ++byte) {
    const char32_t c = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
    alphabet.characters[static_cast<size_t>(byte)] = c;
    alphabet.bytes[c] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();
static_assert(kAlphabet.characters[' '] == 0x120 && kAlphabet.characters[0xAD] == 0x143);

}  // namespace

bool AppendByteLevel(std::string_view spelled, std::string* out) {
  const size_t before = out->size();
  for (size_t at = 0; at < spelled.size();) {
    const utf8::Decoded c = utf8::Decode(spelled, at);
    if (c.code >= kAlphabet.bytes.size() || kAlphabet.bytes[c.code] < 0) {
      out->resize(before);
      return false;
    }
    out->push_back(static_cast<char>(kAlphabet.bytes[c.code]));
    at += c.length;
  }
  return true;
}

char32_t ByteLevelCharacter(unsigned char byte) { return kAlphabet.characters[byte]; }

}  // namespace nibble
