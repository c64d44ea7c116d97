// A small hash table over token ids: a power of two of slots, linear probing.
#include "engine/sampling/token_counts.h"

#include <algorithm>
#include <bit>

namespace nibble {
namespace {

constexpr size_t kMinSlots = 64;

}  // namespace

// The slot that holds `id`, or the free one where it belongs.
size_t TokenCounts::SlotOf(int32_t id) const {
  const size_t mask = slots_.size() - 1;
  // Fibonacci hashing: neighbouring ids spread over the table.
  size_t slot =
      (static_cast<uint64_t>(static_cast<uint32_t>(id)) * 0x9E3779B97F4A7C15u >> 32) & mask;
  while (slots_[slot] >= 0 && counts_[static_cast<size_t>(slots_[slot])].token != id) {
    slot = (slot + 1) & mask;
  }
  return slot;
}

void TokenCounts::Rebuild(size_t num_slots) {
  slots_.assign(num_slots, -1);
  for (size_t i = 0; i < counts_.size(); ++i) {
    slots_[SlotOf(counts_[i].token)] = static_cast<int32_t>(i);
  }
}

void TokenCounts::Reserve(int64_t distinct) {
  const auto wanted = static_cast<size_t>(std::max<int64_t>(distinct, 0));
  counts_.reserve(wanted);
  const size_t num_slots = std::bit_ceil(std::max(kMinSlots, 2 * wanted));
  if (num_slots > slots_.size()) Rebuild(num_slots);
}

void TokenCounts::AddPrompt(std::span<const int32_t> ids) {
  for (const int32_t id : ids) At(id);
}

TokenCount& TokenCounts::At(int32_t id) {
  if (2 * (counts_.size() + 1) > slots_.size()) Rebuild(std::max(kMinSlots, 2 * slots_.size()));
  int32_t& index = slots_[SlotOf(id)];
  if (index < 0) {
    index = static_cast<int32_t>(counts_.size());
    counts_.push_back({id, 0});
  }
  return counts_[static_cast<size_t>(index)];
}

}  // namespace nibble
