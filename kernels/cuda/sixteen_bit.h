// Products with 16-bit weights by our own kernels. Weights go from memory straight to registers; a
// row's result depends on nothing but that row, whatever the number of rows: sums have one order,
// fixed by K alone.
#pragma once

#include <cstdint>

#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepared_rows.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// fp32 rows times widened weights, every sum fused step by step with k ascending: equal to the CPU
// backend bit for bit. Any shape.
void SixteenBitExact(Tape* tape, WeightFormat format, const Activations& x,
                     const DenseParts& parts);

// On the tensor cores. K % 8 == 0. bf16 weights take rows as sums of two bf16 values each, 16 bits
// of significand; fp16 weights take prepared rows.
constexpr bool FitsSixteenBitMma(int64_t k) { return k % 8 == 0; }
void Bf16Mma(Tape* tape, int num_processors, const Activations& x, const DenseParts& parts);
void HalfMma(Tape* tape, int num_processors, const PreparedRows& x, const DenseParts& parts);

}  // namespace nibble::cuda
