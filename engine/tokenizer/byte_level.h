// GPT-2's alphabet: each of the 256 bytes is written as one printable character, so that a
// vocabulary of byte strings can stand in a text file ("Ġ" is the space). Knows no vocabulary.
#pragma once

#include <string>
#include <string_view>

namespace nibble {

// Appends the bytes that `spelled` (valid UTF-8) stands for. False, and out unchanged, if a
// character of it is none of the alphabet.
bool AppendByteLevel(std::string_view spelled, std::string* out);

// The spelling of one byte.
char32_t ByteLevelCharacter(unsigned char byte);

}  // namespace nibble
