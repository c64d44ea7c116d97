// A request's sampling, stopping and output fields, checked and filled in with the model's
// defaults. Every field is untrusted; every error is INVALID_ARGUMENT and names the field's path
// with one of the reasons VALUE_OUT_OF_RANGE (NaN and infinite too), OVER_CAP (a published cap),
// TOKEN_OUT_OF_RANGE, EMPTY_STOP_STRING, INVALID_UTF8.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/request.h"
#include "engine/request_caps.h"
#include "kernels/sampling.h"

namespace nibble {

// The ranges that SamplingParams says, and for what it leaves open: repetition_penalty lies in
// [0.001, 1000], where a logit stays finite.
struct ResolvedSampling {
  SamplingPlan plan;            // all but row, index, position, seed, bias, counts and banned
  std::vector<TokenBias> bias;  // by ascending token
  bool penalized = false;       // a penalty is not neutral: the plan needs counts
};

// A field the request leaves out takes generation_config.json's value (one out of range there is no
// value), else the neutral one. What decides between greedy and sampling, in this order:
//   1. the request's temperature: 0 is greedy, anything else samples, whatever do_sample says;
//   2. do_sample false or absent: greedy;
//   3. the file's temperature, or 1.
// A temperature below 1e-5 is 0: its softmax has no second token either.
absl::StatusOr<ResolvedSampling> ResolveSampling(const SamplingParams& request,
                                                 const GenerationDefaults& defaults,
                                                 const RequestCaps& caps, int32_t vocabulary);

absl::Status CheckStopping(const StoppingParams& stopping, const RequestCaps& caps,
                           int32_t vocabulary);

// logprobs and prompt_logprobs: -1 (none) to the cap.
absl::Status CheckOutput(const OutputParams& output, const RequestCaps& caps);

}  // namespace nibble
