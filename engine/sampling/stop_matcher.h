// Stop strings in the text of one answer, as it comes. Knows text only: no tokens, no prompt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Thread rule: one thread at a time. Time is linear in the text, times the number of stop strings.
// 1. Text that may begin a stop string is held back: the longest end of the text that is a
//    beginning of one. Everything before it is released at once.
// 2. A stop string ends the answer as soon as it is complete. Of those complete after one Push the
//    one that begins first wins, then the longest.
// 3. Text that was never pushed (a prompt, the first min_tokens) is never part of a match.
class StopMatcher {
 public:
  // None of `stop` is empty; an empty one is ignored.
  explicit StopMatcher(const std::vector<std::string>& stop);

  // Takes in text and appends what it releases to *released. Returns the stop string that is now
  // complete: *released then ends where it begins, the rest is dropped, and Push is not called
  // again.
  std::optional<std::string> Push(std::string_view text, std::string* released);
  // No more text: releases what is held back.
  void Flush(std::string* released);
  // Text taken in and not released, in bytes.
  size_t held_bytes() const { return held_.size(); }

 private:
  struct Pattern {
    std::string text;
    std::vector<uint32_t> fallback;  // Knuth, Morris, Pratt: of each matched length, the next best
    uint32_t matched = 0;            // bytes of `text` that the pushed text ends with
  };

  static void Advance(Pattern* pattern, char byte);

  std::vector<Pattern> patterns_;
  std::string held_;
};

}  // namespace nibble
