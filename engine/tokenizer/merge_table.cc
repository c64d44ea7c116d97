// Open addressing with linear probing, at most two slots in three taken.
#include "engine/tokenizer/merge_table.h"

#include "engine/tokenizer/hash.h"

namespace nibble {

MergeTable::MergeTable(size_t num_merges)
    : seed_(RandomSeed()), slots_(num_merges + num_merges / 2 + 1) {}

uint32_t MergeTable::Locate(int32_t left, int32_t right) const {
  const uint64_t pair =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  const auto size = static_cast<uint32_t>(slots_.size());
  uint32_t at = SlotOf(HashWord(pair, seed_), size);
  while (slots_[at].merge.result >= 0 && (slots_[at].left != left || slots_[at].right != right)) {
    at = at + 1 == size ? 0 : at + 1;
  }
  return at;
}

void MergeTable::Set(int32_t left, int32_t right, Merge merge) {
  slots_[Locate(left, right)] = {left, right, merge};
}

MergeTable::Merge MergeTable::Find(int32_t left, int32_t right) const {
  return slots_[Locate(left, right)].merge;
}

}  // namespace nibble
