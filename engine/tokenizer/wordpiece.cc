// Tries the candidates from the longest the vocabulary could have down to one character.
#include "engine/tokenizer/wordpiece.h"

#include <algorithm>
#include <utility>

#include "engine/tokenizer/utf8.h"

namespace nibble {
namespace {

int64_t CountCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char byte) { return !utf8::IsContinuation(byte); });
}

}  // namespace

WordPieceModel::WordPieceModel(const Vocabulary* vocabulary, WordPieceOptions options)
    : vocabulary_(vocabulary), options_(std::move(options)) {}

TokenSpan WordPieceModel::LongestAt(std::string_view word, size_t begin,
                                    std::string* scratch) const {
  scratch->clear();
  if (begin > 0) *scratch = options_.continuing_prefix;
  const size_t prefix = scratch->size();
  const size_t most =
      vocabulary_->max_text_bytes() - std::min(vocabulary_->max_text_bytes(), prefix);
  size_t end = std::min(word.size(), begin + most);
  while (end < word.size() && end > begin && utf8::IsContinuation(word[end])) --end;
  scratch->append(word, begin, end - begin);
  while (end > begin) {
    const int32_t id = vocabulary_->Find(*scratch, Vocabulary::Kind::kText);
    if (id >= 0) return {id, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
    end -= utf8::DecodeBefore(word, end).length;
    scratch->resize(prefix + end - begin);
  }
  return {-1, 0, 0};
}

void WordPieceModel::Tokenize(std::string_view word, std::string* scratch,
                              std::vector<TokenSpan>* out) const {
  const size_t before = out->size();
  bool known = CountCharacters(word) <= options_.max_word_characters;
  for (size_t at = 0; known && at < word.size();) {
    const TokenSpan token = LongestAt(word, at, scratch);
    known = token.id >= 0;
    at = token.end;
    if (known) out->push_back(token);
  }
  if (known) return;
  out->resize(before);
  out->push_back({options_.unknown_id, 0, static_cast<uint32_t>(word.size())});
}

int64_t WordPieceModel::MemoryBytes() const {
  const std::string& prefix = options_.continuing_prefix;
  return prefix.capacity() > std::string().capacity() ? static_cast<int64_t>(prefix.capacity() + 1)
                                                      : 0;
}

}  // namespace nibble
