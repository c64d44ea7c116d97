// Runs a whole launch on the emulated machine. What the fake runtime calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "kernels/cuda/launch.h"

namespace nibble::cuda::emulator {

// Blocks run one after another in an order that the seed gives, as do their threads. `previous`
// runs the launch before this one, which then waits for it with WaitForPreviousKernel: called once,
// while the first block runs.
void RunGrid(const KernelCall& call, void* const* args, uint64_t seed,
             const std::function<void()>& previous = nullptr);

// Ends the process, naming the kernel, if one of the arguments' aligned words points to memory of
// the host: is_device says what does not.
void CheckArguments(const KernelCall& call, void* const* args, const size_t* sizes, size_t num_args,
                    const std::function<bool(const void*)>& is_device);

}  // namespace nibble::cuda::emulator
