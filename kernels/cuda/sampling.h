// Sampling where the logits are: only ids and the logprobs asked for leave the device. Meaning:
// kernels/sampling.h; the draws walk the same whole numbers of 2^-40 as the CPU's
// (kernels/cpu/sampling.cc), so equal logits give equal tokens.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// SamplingPlan with its arrays as offsets into device arrays. Plain data without padding.
struct DevicePlan {
  uint64_t seed;
  int32_t row;
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  float repetition_penalty;
  float frequency_penalty;
  float presence_penalty;
  uint32_t index;
  uint32_t position;
  int32_t num_logprobs;
  int32_t vocab_limit;
  int32_t forced_token;
  int32_t first_bias, num_bias;      // into biases
  int32_t first_count, num_counts;   // into counts
  int32_t first_banned, num_banned;  // into banned
  int32_t first_top;                 // where this plan's most likely tokens go in tops
};
static_assert(sizeof(DevicePlan) == 88);

struct SamplingTask {
  const DevicePlan* plans = nullptr;  // [num_plans]
  const TokenBias* biases = nullptr;
  const TokenCount* counts = nullptr;
  const int32_t* banned = nullptr;
  // [num_plans]: the token (-1: all are banned), and its logprob if asked for
  TokenLogprob* sampled = nullptr;
  TokenLogprob* tops = nullptr;  // descending, ties: lowest id; token -1: there are no more
  int32_t num_plans = 0;
  int32_t max_top = 0;  // the largest num_logprobs of these plans, at least 0
  int32_t greedy = 0;   // 1: no plan draws (temperature 0 or forced) or reports logprobs
};

inline constexpr int64_t kMaxVocab = 1 << 20;

// logits: [R, V] fp32 and unchanged, V <= kMaxVocab. Three launches, two if greedy, for as many
// plans as fit into 64 MiB of scratch memory; they depend on the task, not on what its plans say.
// scratch: SamplingScratchBytes, 256-aligned.
int64_t SamplingScratchBytes(int64_t max_samples, int64_t vocab);
void Sample(Tape* tape, const Activations& logits, const SamplingTask& task, char* scratch);

}  // namespace nibble::cuda
