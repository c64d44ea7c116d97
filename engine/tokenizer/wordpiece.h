// WordPiece: the longest token that begins a word, then the longest continuation of it, and so on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/token_span.h"
#include "engine/tokenizer/vocabulary.h"

namespace nibble {

struct WordPieceOptions {
  int32_t unknown_id = 0;                // for a word that the vocabulary cannot spell
  std::string continuing_prefix = "##";  // of the tokens that do not begin a word
  int64_t max_word_characters = 100;     // longer words are unknown
};

// Immutable; thread-safe.
class WordPieceModel {
 public:
  // The vocabulary must outlive the model.
  WordPieceModel(const Vocabulary* vocabulary, WordPieceOptions options);

  // Appends the tokens of a word that is valid UTF-8 and not empty. scratch: spare text.
  void Tokenize(std::string_view word, std::string* scratch, std::vector<TokenSpan>* out) const;

  int64_t MemoryBytes() const;

 private:
  // The longest token of word[begin…]; id -1 when none fits.
  TokenSpan LongestAt(std::string_view word, size_t begin, std::string* scratch) const;

  const Vocabulary* vocabulary_;
  WordPieceOptions options_;
};

}  // namespace nibble
