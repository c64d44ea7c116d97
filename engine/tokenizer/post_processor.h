// What happens to the tokens of a whole text: special tokens around it, white space trimmed off the
// offsets. Knows no text.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace nibble {

// How many white-space characters a token begins and ends with.
struct TokenPadding {
  int64_t leading = 0;
  int64_t trailing = 0;
};

struct PostStep {
  bool trim_offsets = false;
  bool add_prefix_space = false;  // a single leading space of the first token is not the text's
  std::vector<int32_t> before, after;  // ids put around, when asked for
};

// Immutable; thread-safe.
class PostProcessor {
 public:
  PostProcessor() = default;  // does nothing
  explicit PostProcessor(std::vector<PostStep> steps);

  // traced: encoding->offsets and padding have an entry for each token; else both are empty.
  void Process(bool add_special_tokens, bool traced, std::vector<TokenPadding> padding,
               Encoding* encoding) const;

  const std::vector<PostStep>& steps() const { return steps_; }
  int64_t MemoryBytes() const;

 private:
  std::vector<PostStep> steps_;
};

}  // namespace nibble
