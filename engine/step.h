// One engine iteration of one model: the rows to compute and what to do with them. Plain data,
// reused between steps.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace nibble {

// The largest step that a model will ever be asked; its workspace is sized by it at load.
struct StepLimits {
  int64_t max_rows = 512;       // tokens of one step
  int64_t max_sequences = 256;  // sequences of one step
  int64_t max_logit_rows = 64;  // logits held at once; more rows are sampled in slices
};

// Row r computes token tokens[r]; sequences[i] says whose rows are whose and at which positions.
struct DecodeStep {
  std::vector<int32_t> tokens;
  std::vector<SequenceRows> sequences;
  std::vector<SamplingPlan> plans;    // plan.row is a row of this step; sorted by row
  std::vector<SampledToken> sampled;  // out: one per plan
};

struct EncodeStep {
  std::vector<int32_t> tokens;
  std::vector<SequenceRows> sequences;
  Pooling pooling = Pooling::kMean;
  bool normalize = true;
  int64_t dimensions = 0;     // 0: all
  std::vector<float> pooled;  // out: [sequences, dimensions]
};

}  // namespace nibble
