// Token ids of one answer to text as they come, in whole UTF-8 characters only.
#pragma once

#include <cstdint>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace nibble {

// At most three bytes of an unfinished character are held back; bytes that can no longer become one
// come out as U+FFFD, so the concatenation of everything pushed and flushed equals
// Tokenizer::Decode of the same ids.
class StreamDecoder {
 public:
  // tokenizer may be null (a model that serves ids): everything is empty text. It must outlive the
  // decoder.
  StreamDecoder(const Tokenizer* tokenizer, bool skip_special_tokens);

  // Text that this id completes; often empty for a part of a character.
  std::string Push(int32_t id);
  // What is still held back, as U+FFFD.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  bool first_ = true;
  std::string pending_;
};

}  // namespace nibble
