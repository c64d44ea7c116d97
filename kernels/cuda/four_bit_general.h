// 4-bit products in exact fp32 (kGeneral of matmul_table.h), of any shape: groups may straddle
// rows.
#pragma once

#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/launch.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// out_i (+)= x·W_iᵀ + bias_i with the additions of the CPU backend in their order, so equal to it
// bit for bit. Where groups lie in rows: fused sums of raw codes over k ascending within a group,
// then of group sum · scale over groups ascending. Where they straddle rows: fused sums of x ·
// (code · scale) over k ascending. A row's result does not depend on the rows beside it.
//   x: [M, K] fp32.   parts: each K that of x.
void FourBitGeneral(Tape* tape, const Activations& x, const FourBitParts& parts);

}  // namespace nibble::cuda
