// What a backend needs to turn one row of logits into one token: plain data, no request, no text.
//
// Order: logit bias, penalties, temperature, top-k, top-p, min-p, draw. Logprobs are of the raw
// logits. The draw is u(seed, index, position) of a counter-based generator, so it never depends on
// neighbours: the kept tokens are walked in ascending id until their probability mass passes u.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

struct TokenBias {
  int32_t token = 0;
  float bias = 0;
};

// A token that penalties see. `output_count` counts the generated ones only.
struct TokenCount {
  int32_t token = 0;
  int32_t output_count = 0;
};

struct SamplingPlan {
  int32_t row = 0;        // row of the logits this plan samples from
  float temperature = 0;  // 0: greedy (largest logit after bias and penalties; ties: lowest id)
  int32_t top_k = 0;      // 0: all
  float top_p = 1;        // (0, 1]
  float min_p = 0;        // [0, 1]
  float repetition_penalty = 1;
  float frequency_penalty = 0;
  float presence_penalty = 0;
  uint64_t seed = 0;
  uint32_t index = 0;         // which of the request's n answers
  uint32_t position = 0;      // position of the token being sampled
  int32_t num_logprobs = -1;  // -1: none; 0: the sampled token's only; k: and the k most likely
  int32_t vocab_limit = 0;    // ids >= this are never sampled (0: no limit)
  std::span<const TokenBias> bias = {};
  std::span<const TokenCount> counts = {};  // every distinct token of prompt and output
  std::span<const int32_t> banned = {};  // never sampled at this step (min_tokens: the stop tokens)
  // >= 0: nothing is drawn; `token` is this one and its logprobs are reported (prompt logprobs).
  int32_t forced_token = -1;
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// Reserved once and reused: `top` keeps its capacity between steps.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;              // set when num_logprobs >= 0
  std::vector<TokenLogprob> top;  // descending; ties: lowest id
};

// Philox4x32-10 with key = seed and counter = (index, position, 0, 0); the first word's upper 24
// bits / 2^24: [0, 1). Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
float UniformDraw(uint64_t seed, uint32_t index, uint32_t position);

}  // namespace nibble
