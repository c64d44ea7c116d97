// The distinct tokens of one sequence and how often each was generated: what penalties look at.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sampling.h"

namespace nibble {

// Thread rule: one thread at a time. O(1) per token. Until the first token, and while no more than
// the reserved number of distinct ones has come, nothing is allocated.
class TokenCounts {
 public:
  // Room for so many distinct tokens.
  void Reserve(int64_t distinct);
  void AddPrompt(std::span<const int32_t> ids);
  void AddOutput(int32_t id) { ++At(id).output_count; }

  // In the order of first appearance. Valid until the next change.
  std::span<const TokenCount> counts() const { return counts_; }

 private:
  TokenCount& At(int32_t id);
  void Rebuild(size_t num_slots);
  size_t SlotOf(int32_t id) const;

  std::vector<TokenCount> counts_;
  std::vector<int32_t> slots_;  // open addressing: index into counts_, or -1; at most half full
};

}  // namespace nibble
