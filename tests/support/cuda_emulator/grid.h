// Runs a whole launch on the emulated machine. What the fake runtime calls.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cuda/launch.h"

namespace nibble::cuda::emulator {

// Blocks run one after another in an order that the seed gives, as do their threads.
void RunGrid(const KernelCall& call, void* const* args, uint64_t seed);

// Prints which kernel, block and thread runs when the process gets SIGSEGV or SIGBUS.
void InstallFaultHandler();

}  // namespace nibble::cuda::emulator
