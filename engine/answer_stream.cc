// Holding back and letting go.
#include "engine/answer_stream.h"

#include <utility>

namespace nibble {

AnswerStream::AnswerStream(const Tokenizer* tokenizer, const std::vector<std::string>& stop,
                           bool include_stop)
    : tokenizer_(tokenizer),
      include_stop_(include_stop),
      decoder_(tokenizer, /*skip_special_tokens=*/true),
      matcher_(stop) {}

std::optional<std::string> AnswerStream::Push(int32_t id, std::optional<TokenLogprobs> logprobs,
                                              bool may_stop, GenerateChunk* chunk) {
  may_stop_ = may_stop;
  const std::string text = decoder_.Push(id);
  // A token without text is either one that never has any, or part of a character: that one's end
  // is somewhere past what is decoded, so it waits for the character.
  const bool has_no_text = tokenizer_ == nullptr || tokenizer_->IsSpecial(id);
  decoded_bytes_ += static_cast<int64_t>(text.size());
  const int64_t text_end = decoded_bytes_ + (text.empty() && !has_no_text ? 1 : 0);
  held_.push_back({id, text_end, std::move(logprobs)});
  return Release(text, chunk);
}

std::optional<std::string> AnswerStream::Finish(GenerateChunk* chunk) {
  const std::string text = decoder_.Flush();
  decoded_bytes_ += static_cast<int64_t>(text.size());
  std::optional<std::string> stop = Release(text, chunk);
  if (stop.has_value()) return stop;
  matcher_.Flush(&chunk->text);
  ReleaseTokens(INT64_MAX, chunk);
  return std::nullopt;
}

// Text goes through the matcher; tokens follow the text that came out.
std::optional<std::string> AnswerStream::Release(const std::string& text, GenerateChunk* chunk) {
  const size_t before = chunk->text.size();
  std::optional<std::string> stop;
  if (may_stop_) {
    stop = matcher_.Push(text, &chunk->text);
  } else {
    chunk->text += text;
  }
  released_bytes_ += static_cast<int64_t>(chunk->text.size() - before);
  if (stop.has_value() && include_stop_) {
    chunk->text += *stop;
    ReleaseTokens(INT64_MAX, chunk);
  } else {
    ReleaseTokens(released_bytes_, chunk);
  }
  return stop;
}

void AnswerStream::ReleaseTokens(int64_t text_end, GenerateChunk* chunk) {
  size_t released = 0;
  for (HeldToken& token : held_) {
    if (token.text_end > text_end) break;
    chunk->token_ids.push_back(token.id);
    if (token.logprobs.has_value()) chunk->logprobs.push_back(*std::move(token.logprobs));
    ++released;
  }
  held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(released));
}

}  // namespace nibble
