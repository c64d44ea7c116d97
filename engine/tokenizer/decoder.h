// What a token adds to a text, by the rules of the file's decoder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/tokenizer/vocabulary.h"

namespace nibble {

struct Decoder {
  enum class Kind {
    kByteLevel,  // a token is its bytes
    kWordPiece,  // a space before every token but the first and those that continue a word
    kSpaces,     // no decoder: a space between any two tokens
  };
  Kind kind = Kind::kByteLevel;
  std::string continuing_prefix;  // kWordPiece
  bool cleanup = false;           // kWordPiece: take spaces out before punctuation and contractions

  // spelled: the token as the file has it, unless its kind is kBytes: then its bytes.
  std::string Decode(std::string_view text, Vocabulary::Kind token_kind, bool first) const;
  int64_t MemoryBytes() const;
};

}  // namespace nibble
