// Tokens that stand in a text as they are written and are found before anything else: leftmost, and
// of those the longest. Some are looked for in the text as it came, some in the normalized text.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace nibble {

struct AddedToken {
  std::string content;  // what is looked for; not empty
  int32_t id = 0;
  bool single_word = false;  // only where no word character touches it
  bool strip_left = false;   // swallows white space before it
  bool strip_right = false;  // and after it
};

// Immutable; thread-safe.
class AddedTokens {
 public:
  static constexpr size_t kMaxContentBytes = 4096;  // bounds the time a search takes per byte

  // Whether a match of text[begin, end) counts.
  using Accept = absl::FunctionRef<bool(size_t begin, size_t end)>;
  // A stretch of the text: a token, or (id -1) what is between tokens. Never empty.
  using Emit = absl::FunctionRef<void(int32_t id, size_t begin, size_t end)>;

  AddedTokens() = default;
  // Of two tokens with the same content the first counts.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  void Split(std::string_view text, Accept accept, Emit emit) const;

  int64_t MemoryBytes() const;

 private:
  struct Token {
    uint32_t begin = 0;  // of its content in the arena
    uint32_t length = 0;
    int32_t id = 0;
    bool single_word = false, strip_left = false, strip_right = false;
  };
  std::string_view Content(const Token& token) const {
    return std::string_view{arena_}.substr(token.begin, token.length);
  }
  // The longest token at text[at] that is accepted; null when none is.
  const Token* Match(std::string_view text, size_t at, Accept accept) const;

  std::string arena_;
  std::vector<Token> tokens_;  // sorted by content
  std::array<bool, 256> first_bytes_{};
};

}  // namespace nibble
