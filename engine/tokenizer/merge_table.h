// The merges of a BPE model: a hash table from two neighbouring tokens to the merge's rank and
// result. Knows no text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble {

// Immutable once filled; then thread-safe.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = 0;
    int32_t result = -1;  // -1: no merge
  };

  // For at most `num_merges` merges, below 2^31.
  explicit MergeTable(size_t num_merges);

  // A pair that is there already takes the new rank, as in Hugging Face.
  void Set(int32_t left, int32_t right, Merge merge);
  Merge Find(int32_t left, int32_t right) const;

  int64_t MemoryBytes() const { return static_cast<int64_t>(slots_.capacity() * sizeof(Slot)); }

 private:
  struct Slot {
    int32_t left = 0;
    int32_t right = 0;
    Merge merge;
  };
  // The slot that holds the pair, or the empty one where it belongs.
  uint32_t Locate(int32_t left, int32_t right) const;

  uint64_t seed_;
  std::vector<Slot> slots_;
};

}  // namespace nibble
