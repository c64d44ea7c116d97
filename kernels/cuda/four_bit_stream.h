// 4-bit products of few rows (kStream of matmul_table.h): bound by the reading of weights, which go
// from memory straight to registers and through mma.sync.
#pragma once

#include <cstdint>

#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepared_rows.h"

namespace nibble::cuda {

inline constexpr int64_t kStreamRows = 8;

// out_i[m,n] (+)= scale[m] · Σ_groups absmax · Σ_k fp16(codebook[code]) · values[m,k] + bias_i[n],
// one launch for all parts.
//   x: at most kStreamRows rows.   parts: FitsUnits, each K that of x, one group size,
// scales of one form.
// Sums are fp32. Their order depends on the shapes of the parts and on num_processors, on nothing
// else. split: kSplitBytes, aligned to 256, counters zero before and after. At most 1024
// processors.
void FourBitStream(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                   void* split);

}  // namespace nibble::cuda
