// One instruction again and again on sums that never leave their registers; `Sum` says which: Start
// makes the i-th, Step goes on with it, Bits ends. Included by the file of each ISA, and internal
// to it.
#pragma once

#include <stdint.h>

namespace nibble {
namespace {

template <typename Sum, int kSums>
inline int32_t RunPeak(int64_t steps) {
  Sum sums[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sums[i] = Sum::Start(i);
  for (int64_t n = 0; n < steps; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i].Step();
  }
  uint32_t bits = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) bits += static_cast<uint32_t>(sums[i].Bits());
  return static_cast<int32_t>(bits);
}

}  // namespace
}  // namespace nibble
