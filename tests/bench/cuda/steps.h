// Whole decode steps of random 8B- and 70B-shaped models, and what memory they take.
#pragma once

#include "tests/bench/cuda/figures.h"
#include "tests/bench/cuda/machine.h"

namespace nibble::bench {

// E1, E2, memory, and the rows behind them.
void MeasureSteps(Machine* machine, double copy_bandwidth, Figures* figures);

}  // namespace nibble::bench
