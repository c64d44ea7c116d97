// Grouped products with packed weights: cuts the work into units and hands them to the ISA row.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/context.h"

namespace nibble {

int64_t MatMulScratchBytes(const BackendLimits& limits, Compute compute);

void CpuMatMul(const CpuContext& context, const Activations& x, std::span<const MatMulPart> parts);

}  // namespace nibble
