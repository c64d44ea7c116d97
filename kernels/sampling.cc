// The random number of a draw: a pure function of (seed, index, position). Nothing else of sampling
// is common to all backends.
#include "kernels/sampling.h"

#include <array>

namespace nibble {
namespace {

using Counter = std::array<uint32_t, 4>;
using Key = std::array<uint32_t, 2>;

constexpr int kRounds = 10;

Counter Round(const Counter& c, const Key& key) {
  const uint64_t a = uint64_t{0xD2511F53u} * c[0];
  const uint64_t b = uint64_t{0xCD9E8D57u} * c[2];
  return {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
}

Counter Philox4x32(Counter counter, Key key) {
  for (int round = 0; round < kRounds; ++round) {
    counter = Round(counter, key);
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};  // golden ratio, sqrt(3) - 1
  }
  return counter;
}

}  // namespace

float UniformDraw(uint64_t seed, uint32_t index, uint32_t position) {
  const Key key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const uint32_t word = Philox4x32({index, position, 0, 0}, key)[0];
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

}  // namespace nibble
