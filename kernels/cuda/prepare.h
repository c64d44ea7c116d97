// Rows of x in the form that a product takes them, each from its own row alone. Every function
// appends one launch.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepared_rows.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// fp32 rows → fp16 values times one power of two a row (prepared_rows.h). The power is 1 where the
// row's largest finite magnitude lies in [2^-4, 2^15), 1 for a row of zeros, and else such that the
// largest comes to lie in [2^14, 2^15), as far as fp32 has the power. Inf and NaN stay what they
// are. So |x - value·scale| <= 2^-11·|x| + 2^-21·(the row's largest).
// out.values: [rows, out.stride]; zeros past K.
void PrepareHalf(Tape* tape, const Activations& x, const PreparedRows& out);

// fp32 rows → bf16 rows [rows, stride], rounded to nearest even; zeros past K.
void PrepareBf16(Tape* tape, const Activations& x, uint16_t* out, int64_t stride);

}  // namespace nibble::cuda
