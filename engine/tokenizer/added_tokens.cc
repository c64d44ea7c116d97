// The tokens sorted by content are a trie in disguise: each further byte of the text narrows the
// range of tokens that may still match.
#include "engine/tokenizer/added_tokens.h"

#include <algorithm>

#include "engine/check.h"
#include "engine/tokenizer/unicode.h"

namespace nibble {
namespace {

bool IsSingleWord(std::string_view text, size_t begin, size_t end) {
  const auto is_word = [](utf8::Decoded c) {
    return (unicode::Traits(c.code) & unicode::kWord) != 0;
  };
  if (begin > 0 && is_word(utf8::DecodeBefore(text, begin))) return false;
  return end == text.size() || !is_word(utf8::Decode(text, end));
}

size_t SkipSpaceBefore(std::string_view text, size_t begin, size_t floor) {
  while (begin > floor) {
    const utf8::Decoded c = utf8::DecodeBefore(text, begin);
    if ((unicode::Traits(c.code) & unicode::kSpace) == 0) break;
    begin -= c.length;
  }
  return begin;
}

size_t SkipSpaceAfter(std::string_view text, size_t end) {
  while (end < text.size()) {
    const unicode::Character c = unicode::CharacterAt(text, end);
    if ((c.traits & unicode::kSpace) == 0) break;
    end += c.length;
  }
  return end;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) {
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  const auto twins =
      std::unique(tokens.begin(), tokens.end(),
                  [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; });
  tokens.erase(twins, tokens.end());
  size_t bytes = 0;
  for (const AddedToken& token : tokens) bytes += token.content.size();
  Check(bytes < uint64_t{1} << 32, "added tokens take less than 4 GiB");
  arena_.reserve(bytes);
  tokens_.reserve(tokens.size());
  for (const AddedToken& token : tokens) {
    Check(!token.content.empty(), "an added token is not empty");
    tokens_.push_back({static_cast<uint32_t>(arena_.size()),
                       static_cast<uint32_t>(token.content.size()), token.id, token.single_word,
                       token.strip_left, token.strip_right});
    arena_.append(token.content);
    first_bytes_[static_cast<uint8_t>(token.content[0])] = true;
  }
}

const AddedTokens::Token* AddedTokens::Match(std::string_view text, size_t at,
                                             Accept accept) const {
  const Token* longest = nullptr;
  const Token* low = tokens_.data();
  const Token* high = low + tokens_.size();
  for (size_t depth = 0; at + depth < text.size() && low != high; ++depth) {
    // All of [low, high) begin with text[at, at + depth); keep those that have the next byte too.
    const auto next = static_cast<uint8_t>(text[at + depth]);
    const auto byte = [&](const Token& token) -> int {
      return token.length > depth ? static_cast<uint8_t>(arena_[token.begin + depth]) : -1;
    };
    low = std::partition_point(low, high, [&](const Token& token) { return byte(token) < next; });
    high = std::partition_point(low, high, [&](const Token& token) { return byte(token) <= next; });
    if (low != high && low->length == depth + 1 && accept(at, at + depth + 1)) longest = low;
  }
  return longest;
}

void AddedTokens::Split(std::string_view text, Accept accept, Emit emit) const {
  size_t done = 0;  // everything before it was emitted
  for (size_t at = 0; !tokens_.empty() && at < text.size();) {
    const Token* token =
        first_bytes_[static_cast<uint8_t>(text[at])] ? Match(text, at, accept) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + token->length;
    at = end;
    if (token->single_word && !IsSingleWord(text, begin, end)) continue;
    // Space that the token before has swallowed is not swallowed twice.
    if (token->strip_left) begin = std::max(SkipSpaceBefore(text, begin, done), done);
    end = std::max(begin, token->strip_right ? SkipSpaceAfter(text, end) : end);
    if (done < begin) emit(-1, done, begin);
    emit(token->id, begin, end);
    done = end;
  }
  if (done < text.size()) emit(-1, done, text.size());
}

int64_t AddedTokens::MemoryBytes() const {
  const size_t arena = arena_.capacity() > std::string().capacity() ? arena_.capacity() + 1 : 0;
  return static_cast<int64_t>(arena + tokens_.capacity() * sizeof(Token));
}

}  // namespace nibble
