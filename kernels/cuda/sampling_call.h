// One launch's worth of sampling as its kernels see it, and what they all ask of a plan. Included
// by .cu files after cuda_machine.h.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/row_access.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/sampling_scratch.h"

namespace nibble::cuda {

// Plain data without padding: a kernel's parameter. plans and sampled begin with this group's
// first.
struct SamplingCall {
  const DevicePlan* plans;
  const TokenBias* biases;
  const TokenCount* counts;
  const int32_t* banned;
  TokenLogprob* sampled;
  TokenLogprob* tops;
  DeviceRows logits;
  int64_t vocab;
  SamplingScratch scratch;
};

// The three launches, in this order; sums only where a plan may draw or report.
void LaunchPrepare(Tape* tape, const SamplingCall& call, int64_t num_plans);
void LaunchSums(Tape* tape, const SamplingCall& call, int64_t num_plans);
void LaunchPick(Tape* tape, const SamplingCall& call, int64_t num_plans, bool greedy,
                int32_t max_top);

__device__ __forceinline__ int32_t LimitOf(const DevicePlan& plan, int64_t vocab) {
  const int32_t all = static_cast<int32_t>(vocab);
  return plan.vocab_limit > 0 && plan.vocab_limit < all ? plan.vocab_limit : all;
}
__device__ __forceinline__ bool Picks(const DevicePlan& plan) { return plan.forced_token < 0; }
__device__ __forceinline__ bool Reports(const DevicePlan& plan) { return plan.num_logprobs >= 0; }
__device__ __forceinline__ bool Penalizes(const DevicePlan& plan) {
  return plan.repetition_penalty != 1.0f || plan.frequency_penalty != 0.0f ||
         plan.presence_penalty != 0.0f;
}
__device__ __forceinline__ bool Edits(const DevicePlan& plan) {
  return Picks(plan) &&
         (plan.num_bias > 0 || plan.num_banned > 0 || (Penalizes(plan) && plan.num_counts > 0));
}
__device__ __forceinline__ bool KeepsTopK(const DevicePlan& plan, int32_t count) {
  return plan.top_k > 0 && plan.top_k < count;
}
// A temperature so small that its inverse overflows leaves only the largest logits.
__device__ __forceinline__ float FactorOf(const DevicePlan& plan) {
  const float inverse = 1.0f / plan.temperature;
  return inverse < 0x1.fffffep127f ? inverse : 0x1.fffffep127f;
}

__device__ __forceinline__ SamplingRow RawRow(const SamplingCall& call, const DevicePlan& plan) {
  return {call.logits.Row(plan.row), static_cast<int32_t>(call.vocab),
          static_cast<int32_t>(call.logits.aligned)};
}
// The row that plan number `index` of the group picks from.
__device__ __forceinline__ SamplingRow PickedRow(const SamplingCall& call, const DevicePlan& plan,
                                                 int64_t index) {
  SamplingRow row = RawRow(call, plan);
  if (Edits(plan)) {
    row.logits = call.scratch.rows + index * call.scratch.row_stride;
    row.aligned = 1;
  }
  row.count = LimitOf(plan, call.vocab);
  return row;
}

// The largest logit of a view, in every lane.
__device__ __forceinline__ float WarpMax(float value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, lanes));
  }
  return value;
}
__device__ __forceinline__ float LargestOf(const SamplingScratch& scratch, View view,
                                           int64_t index) {
  const float* const slices = scratch.slices[view] + index * scratch.num_slices;
  float largest = -INFINITY;
  for (int64_t s = threadIdx.x % kWarp; s < scratch.num_slices; s += kWarp) {
    largest = fmaxf(largest, slices[s]);
  }
  return WarpMax(largest);
}

}  // namespace nibble::cuda
