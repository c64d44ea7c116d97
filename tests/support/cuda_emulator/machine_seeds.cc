// On the emulated machine a seed is the order of threads and blocks and the delay of copies.
#include "tests/kernels/cuda/machine_seeds.h"

#include "tests/support/cuda_emulator/fake_runtime.h"

namespace nibble::cuda {

const char* MachineName() { return "the emulated CUDA machine"; }
bool IsEmulated() { return true; }
void SetMachineSeed(uint64_t seed) { fake::SetSeed(seed); }

}  // namespace nibble::cuda
