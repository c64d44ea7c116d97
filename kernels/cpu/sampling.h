// Picks tokens from rows of logits by sampling plans; see kernels/sampling.h for the meaning.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/context.h"

namespace nibble {

int64_t SamplingScratchBytes(const BackendLimits& limits, int num_threads);

void CpuSample(const CpuContext& context, const Activations& logits,
               std::span<const SamplingPlan> plans, std::span<SampledToken> sampled);

}  // namespace nibble
