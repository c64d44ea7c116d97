// Sampling as kernels/sampling.h and the contract define it, by sorting the whole vocabulary.
#pragma once

#include <span>

#include "kernels/sampling.h"

namespace nibble::reference {

// One token from one row of logits [V]. At least one id must be left to sample (or forced).
void SampleOne(std::span<const float> logits, const SamplingPlan& plan, SampledToken* sampled);

}  // namespace nibble::reference
