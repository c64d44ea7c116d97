// A seeded hash for the tokenizer's own tables: a model's file cannot know the seed, so it cannot
// choose its entries to collide. Multiplies to 128 bits and folds.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>

namespace nibble {

inline uint64_t RandomSeed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

inline uint64_t Mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
}

inline constexpr uint64_t kHashMultiplier = 0x9E3779B97F4A7C15;

inline uint64_t HashWord(uint64_t word, uint64_t seed) {
  return Mix(word ^ seed, kHashMultiplier ^ (seed >> 7));
}

inline uint64_t HashBytes(std::string_view bytes, uint64_t seed) {
  uint64_t hash = Mix(seed ^ bytes.size(), kHashMultiplier);
  while (bytes.size() > 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), 8);
    hash = Mix(hash ^ word, kHashMultiplier);
    bytes.remove_prefix(8);
  }
  uint64_t word = 0;
  if (!bytes.empty()) std::memcpy(&word, bytes.data(), bytes.size());
  return Mix(hash ^ word, kHashMultiplier ^ seed);
}

// A slot of a table of `size` slots, from the hash's high bits.
inline uint32_t SlotOf(uint64_t hash, uint32_t size) {
  return static_cast<uint32_t>((hash >> 32) * size >> 32);
}

}  // namespace nibble
