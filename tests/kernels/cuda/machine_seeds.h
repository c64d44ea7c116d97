// The machine that a test program is linked to: tests/support/cuda_emulator/machine_seeds.cc or, on
// a card, tests/gpu/machine_seeds.cc.
#pragma once

#include <cstdint>

namespace nibble::cuda {

const char* MachineName();
bool IsEmulated();
// What is free to happen in any order happens in another one. Nothing on a card.
void SetMachineSeed(uint64_t seed);

}  // namespace nibble::cuda
