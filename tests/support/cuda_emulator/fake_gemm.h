// The products that cuBLAS does, in plain loops.
#pragma once

#include "kernels/cuda/runtime.h"

namespace nibble::cuda::fake {

// Sums in double (int32 for kInt8), rounded once.
void Multiply(const GemmCall& call);

}  // namespace nibble::cuda::fake
