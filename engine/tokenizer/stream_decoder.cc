// Holds back only the bytes at the end that may still become a character.
#include "engine/tokenizer/stream_decoder.h"

#include <utility>

#include "engine/tokenizer/utf8.h"

namespace nibble {
namespace {

// Where the unfinished character at the end of bytes begins; bytes.size() when there is none.
size_t OpenEnd(const std::string& bytes) {
  const size_t longest = bytes.size() < 3 ? bytes.size() : 3;
  for (size_t length = longest; length > 0; --length) {
    const size_t at = bytes.size() - length;
    const utf8::Stretch stretch = utf8::Scan(bytes, at);
    if (stretch.open && stretch.length == length) return at;
  }
  return bytes.size();
}

}  // namespace

StreamDecoder::StreamDecoder(const Tokenizer* tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string StreamDecoder::Push(int32_t id) {
  if (tokenizer_ == nullptr) return {};
  if (skip_special_tokens_ && tokenizer_->IsSpecial(id)) return {};
  const std::string token = tokenizer_->TokenBytes(id, first_);
  if (token.empty()) return {};
  first_ = false;
  pending_ += token;
  const size_t open = OpenEnd(pending_);
  std::string text;
  utf8::AppendLossy(std::string_view(pending_).substr(0, open), &text);
  pending_.erase(0, open);
  return text;
}

std::string StreamDecoder::Flush() {
  std::string text;
  utf8::AppendLossy(pending_, &text);
  pending_.clear();
  return text;
}

}  // namespace nibble
