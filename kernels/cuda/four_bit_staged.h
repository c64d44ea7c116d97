// 4-bit products of some rows (kStaged of matmul_table.h): weights go from memory straight to
// registers and through mma.sync, rows of x are staged in shared memory in tiles of 16, 32 or 64.
#pragma once

#include <cstdint>

#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepared_rows.h"

namespace nibble::cuda {

// As FourBitStream, for any number of rows. With batch_invariant the order of a row's sums depends
// only on its part's N and K and on num_processors: a row's result has the same bits whatever the
// rows beside it and the parts beside its own.
void FourBitStaged(Tape* tape, int num_processors, const PreparedRows& x, const FourBitParts& parts,
                   bool batch_invariant, void* split);

}  // namespace nibble::cuda
