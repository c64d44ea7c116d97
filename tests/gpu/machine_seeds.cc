// A card orders its threads as it likes.
#include "tests/kernels/cuda/machine_seeds.h"

namespace nibble::cuda {

const char* MachineName() { return "a CUDA device"; }
bool IsEmulated() { return false; }
void SetMachineSeed(uint64_t /*seed*/) {}

}  // namespace nibble::cuda
