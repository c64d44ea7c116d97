// 4-bit products on Hopper's tensor cores (kHopper of matmul_table.h): weights are decoded straight
// into wgmma's registers. Compiled into sm_90a code only; launch it on compute capability 9.0.
#pragma once

#include <cstdint>

#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepare_tiles.h"

namespace nibble::cuda {

// out_i[m,n] (+)= scale[m] · Σ_groups absmax · Σ_k fp16(codebook[code]) · tiles + bias_i[n], one
// launch for parts that share a codebook.
//   parts: FitsUnits, each K that of x; any number of parts, rows and features.
// Sums are fp32: units of 64 k (halves of one in groups of 32) by wgmma, then added in the order of
// k. Where blocks share a tile the sums of its pieces are added in that order too; where the pieces
// begin depends on the shapes and on num_processors, never on timing.
// split: HopperSplitBytes, aligned to 256; the counters at its beginning (kSplitCounters) are zero
// before and after.
int64_t HopperSplitBytes(int num_processors);
void FourBitHopper(Tape* tape, int num_processors, const TiledRows& x, const FourBitParts& parts,
                   void* split);

}  // namespace nibble::cuda
