// One Knuth-Morris-Pratt automaton per stop string, over bytes: UTF-8 is self-synchronising.
#include "engine/sampling/stop_matcher.h"

#include <algorithm>

namespace nibble {

StopMatcher::StopMatcher(const std::vector<std::string>& stop) {
  size_t longest = 0;
  for (const std::string& text : stop) {
    if (text.empty()) continue;
    Pattern pattern{text, std::vector<uint32_t>(text.size() + 1), 0};
    uint32_t length = 0;  // of the longest proper border of text[0, i]
    for (size_t i = 1; i < text.size(); ++i) {
      while (length > 0 && text[i] != text[length]) length = pattern.fallback[length];
      if (text[i] == text[length]) ++length;
      pattern.fallback[i + 1] = length;
    }
    longest = std::max(longest, text.size());
    patterns_.push_back(std::move(pattern));
  }
  held_.reserve(2 * longest);
}

void StopMatcher::Advance(Pattern* pattern, char byte) {
  uint32_t& matched = pattern->matched;
  if (matched == pattern->text.size()) matched = pattern->fallback[matched];
  while (matched > 0 && pattern->text[matched] != byte) matched = pattern->fallback[matched];
  if (pattern->text[matched] == byte) ++matched;
}

std::optional<std::string> StopMatcher::Push(std::string_view text, std::string* released) {
  const Pattern* stop = nullptr;
  size_t stop_begin = 0;
  const size_t first_new = held_.size();
  held_.append(text);
  for (Pattern& pattern : patterns_) {
    for (size_t end = first_new; end < held_.size();) {
      Advance(&pattern, held_[end++]);
      if (pattern.matched < pattern.text.size()) continue;
      const size_t begin = end - pattern.text.size();
      const bool better = stop == nullptr || begin < stop_begin ||
                          (begin == stop_begin && pattern.text.size() > stop->text.size());
      if (better) {
        stop = &pattern;
        stop_begin = begin;
      }
    }
  }
  if (stop != nullptr) {
    released->append(held_, 0, stop_begin);
    held_.clear();
    return stop->text;
  }
  size_t hold = 0;
  for (const Pattern& pattern : patterns_) hold = std::max<size_t>(hold, pattern.matched);
  released->append(held_, 0, held_.size() - hold);
  held_.erase(0, held_.size() - hold);
  return std::nullopt;
}

void StopMatcher::Flush(std::string* released) {
  released->append(held_);
  held_.clear();
  for (Pattern& pattern : patterns_) pattern.matched = 0;
}

}  // namespace nibble
