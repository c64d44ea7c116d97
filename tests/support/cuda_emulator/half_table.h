// fp16 to fp32 by table: half of what the emulated tensor cores do is this.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/half.h"

namespace nibble::cuda::emulator {

inline const std::array<float, 65536> kHalfTable = [] {
  std::array<float, 65536> table;
  for (uint32_t i = 0; i < 65536; ++i) table[i] = F16ToF32(static_cast<uint16_t>(i));
  return table;
}();

inline float Widen(uint16_t half) { return kHalfTable[half]; }

}  // namespace nibble::cuda::emulator
