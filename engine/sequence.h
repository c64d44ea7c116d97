// The running state of one answer: its tokens, how far they are computed, its text, its times.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/answer_stream.h"
#include "engine/request.h"
#include "engine/sampling/token_counts.h"
#include "engine/scheduler/scheduler.h"
#include "engine/step.h"

namespace nibble {

struct GenerateJob;

// What the answers of one request have in common.
struct AnswerSpec {
  const Tokenizer* tokenizer = nullptr;  // may be null
  int64_t num_prompt = 0;                // tokens
  int64_t max_tokens = 0;                // clipped to the context
  int64_t min_tokens = 0;
  std::vector<int32_t> stop_ids;  // end-of-answer tokens, unless ignored, and the request's own
  std::vector<std::string> stop;
  bool include_stop = false;
  SamplingPlan sampling;  // all but row, index, position, counts and banned
  std::vector<TokenBias> bias;
  bool penalized = false;  // the sampler needs counts
  int32_t prompt_logprobs = -1;
};

// Thread rule: made by the submitting thread, then the engine thread's.
// 1. A token is sampled when the row before it is computed and no later token exists, so rows that
//    are computed again after a preemption sample nothing.
// 2. Prompt logprobs are asked for once per prompt token, whatever is computed again.
class Sequence : public Schedulable {
 public:
  // `job` and `spec` must outlive it; it copies the prompt.
  Sequence(GenerateJob* job, const AnswerSpec* spec, std::span<const int32_t> prompt, int32_t index,
           PagePool* pool);

  // Appends this sequence's next rows, their pages and their sampling plans to the step.
  void AppendRows(int64_t num_rows, DecodeStep* step);
  // Takes in what the step made of them. True: *chunk has something for the client. When the answer
  // ends, finished() and the chunk say how.
  bool Settle(int64_t num_rows, std::span<const SampledToken> sampled, GenerateChunk* chunk);

  GenerateJob* job() const { return job_; }
  int32_t index() const { return index_; }
  bool finished() const { return finished_; }
  size_t num_plans() const { return num_plans_; }  // in the current step
  int64_t num_generated() const { return num_tokens - spec_->num_prompt; }

  absl::Time first_row_at = absl::InfiniteFuture();
  absl::Time first_token_at = absl::InfiniteFuture();
  absl::Time last_token_at = absl::InfinitePast();
  absl::Time first_chunk_at = absl::InfiniteFuture();

 private:
  void AppendPlan(int32_t row, int32_t forced_token, int32_t num_logprobs, DecodeStep* step);
  void TakePromptLogprob(const SampledToken& sampled);
  void TakeToken(const SampledToken& sampled, GenerateChunk* chunk);
  void Finish(FinishReason reason, GenerateChunk* chunk);
  TokenLogprobs Describe(const SampledToken& sampled) const;
  std::string Bytes(int32_t id) const;
  bool IsStop(int32_t id) const;

  GenerateJob* const job_;
  const AnswerSpec* const spec_;
  const int32_t index_;
  std::vector<int32_t> tokens_;  // prompt and generated
  TokenCounts counts_;
  AnswerStream stream_;
  std::vector<TokenLogprobs> prompt_logprobs_;  // until the first chunk
  int64_t prompt_logprobs_wanted_ = 0;          // of tokens 1 … this
  int64_t prompt_logprobs_taken_ = 0;
  size_t num_plans_ = 0;
  bool finished_ = false;
};

}  // namespace nibble
