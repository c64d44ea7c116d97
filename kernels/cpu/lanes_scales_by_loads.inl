// Un-nesting scales where no permutation reaches 256 numbers. Included by ISA rows after their V16.
#pragma once

namespace nibble {
namespace {

// What 8-bit scales stand for: 256 numbers.
struct ScaleMap {
  const float* numbers;
};
inline ScaleMap LoadScaleMap(const float* numbers) { return {numbers}; }
// map[a[i]] and map[b[i]] in lane i.
inline void LookupScales(const ScaleMap& map, const uint8_t* a, const uint8_t* b, V16 (&found)[2]) {
  float numbers[2][kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    numbers[0][i] = map.numbers[a[i]];
    numbers[1][i] = map.numbers[b[i]];
  }
  found[0] = Load(numbers[0]);
  found[1] = Load(numbers[1]);
}

}  // namespace
}  // namespace nibble
