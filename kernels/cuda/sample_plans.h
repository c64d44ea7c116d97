// Sampling plans to the device and their answers back: between kernels/sampling.h and sampling.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/cuda/sampling.h"
#include "kernels/cuda/step_inputs.h"
#include "kernels/sampling.h"

namespace nibble::cuda {

// How many of the plans, from the first on, have answers that fit `bytes`; at least 1 where a
// vocabulary's worth of tokens fits.
size_t PlansThatFit(std::span<const SamplingPlan> plans, int64_t vocab, int64_t bytes);
// Of these plans' answers, from the results' begin.
int64_t ResultBytes(std::span<const SamplingPlan> plans, int64_t vocab);

// The plans with their lists among the inputs, answers to go to `results` on the device; nothing
// when they do not fit.
std::optional<SamplingTask> AddPlans(std::span<const SamplingPlan> plans, int64_t vocab,
                                     char* results, StepInputs* inputs);

// From what `results` was copied to.
void ReadSampled(std::span<const SamplingPlan> plans, int64_t vocab, const char* results,
                 std::span<SampledToken> sampled);

}  // namespace nibble::cuda
