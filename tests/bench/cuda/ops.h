// The operations that are no products: attention, norms, sampling and the like.
#pragma once

#include "tests/bench/cuda/figures.h"
#include "tests/bench/cuda/machine.h"

namespace nibble::bench {

// Times at the shapes of an 8B Llama, with the share of copy bandwidth that each operation's own
// bytes make.
void MeasureOps(Machine* machine, double copy_bandwidth, Figures* figures);

}  // namespace nibble::bench
