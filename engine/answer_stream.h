// From sampled tokens to what a client may see: whole characters, nothing that may still become a
// stop string, ids together with their text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/sampling/stop_matcher.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/tokenizer.h"

namespace nibble {

// Of one answer. Thread rule: one thread at a time.
// 1. A token's id is released when all of its text is; text, when no stop string can begin in it.
// 2. After a stop string: text up to it, ids of tokens that end before it; with include_stop also
//    the string itself and the ids up to the one that completed it.
// 3. Without a tokenizer every token is released at once and stop strings match nothing.
class AnswerStream {
 public:
  // tokenizer (may be null) must outlive the stream.
  AnswerStream(const Tokenizer* tokenizer, const std::vector<std::string>& stop, bool include_stop);

  // The next token; what it releases is appended to *chunk. `may_stop` false: its text belongs to
  // the first min_tokens, where nothing stops. Returns the stop string that it completed: the
  // answer ends here.
  std::optional<std::string> Push(int32_t id, std::optional<TokenLogprobs> logprobs, bool may_stop,
                                  GenerateChunk* chunk);
  // No more tokens: half characters become U+FFFD and everything held is released, up to a stop
  // string if that completes one.
  std::optional<std::string> Finish(GenerateChunk* chunk);

 private:
  struct HeldToken {
    int32_t id = 0;
    int64_t text_end = 0;  // bytes of the answer's text when this token's own is complete
    std::optional<TokenLogprobs> logprobs;
  };

  std::optional<std::string> Release(const std::string& text, GenerateChunk* chunk);
  void ReleaseTokens(int64_t text_end, GenerateChunk* chunk);

  const Tokenizer* tokenizer_;
  const bool include_stop_;
  StreamDecoder decoder_;
  StopMatcher matcher_;
  std::vector<HeldToken> held_;
  bool may_stop_ = true;
  int64_t decoded_bytes_ = 0;   // text that came out of the decoder
  int64_t released_bytes_ = 0;  // text that is in chunks
};

}  // namespace nibble
