// Rows out to the step, tokens in from it.
#include "engine/sequence.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"

namespace nibble {
namespace {

// Room for an answer of this length without growing; longer ones grow as vectors do.
constexpr int64_t kReservedTokens = 1024;

}  // namespace

Sequence::Sequence(GenerateJob* job, const AnswerSpec* spec, std::span<const int32_t> prompt,
                   int32_t index, PagePool* pool)
    : Schedulable(pool),
      job_(job),
      spec_(spec),
      index_(index),
      stream_(spec->tokenizer, spec->stop, spec->include_stop) {
  const int64_t room =
      static_cast<int64_t>(prompt.size()) + std::min(spec->max_tokens, kReservedTokens);
  tokens_.reserve(static_cast<size_t>(room));
  tokens_.assign(prompt.begin(), prompt.end());
  num_tokens = static_cast<int64_t>(tokens_.size());
  if (index == 0 && spec->prompt_logprobs >= 0) prompt_logprobs_wanted_ = num_tokens - 1;
  if (spec->penalized) {
    counts_.Reserve(room);
    counts_.AddPrompt(prompt);
  }
}

void Sequence::AppendRows(int64_t num_rows, DecodeStep* step) {
  const int64_t first_row = static_cast<int64_t>(step->tokens.size());
  step->sequences.push_back({first_row, num_rows, num_computed, pages.pages()});
  step->tokens.insert(step->tokens.end(), tokens_.begin() + num_computed,
                      tokens_.begin() + num_computed + num_rows);
  num_plans_ = 0;
  for (int64_t i = 0; i < num_rows; ++i) {
    const int64_t position = num_computed + i;
    const auto row = static_cast<int32_t>(first_row + i);
    if (position >= prompt_logprobs_taken_ && position < prompt_logprobs_wanted_) {
      AppendPlan(row, tokens_[static_cast<size_t>(position + 1)], spec_->prompt_logprobs, step);
    }
    if (position + 1 == num_tokens) AppendPlan(row, -1, spec_->sampling.num_logprobs, step);
  }
}

void Sequence::AppendPlan(int32_t row, int32_t forced_token, int32_t num_logprobs,
                          DecodeStep* step) {
  SamplingPlan plan = spec_->sampling;
  plan.row = row;
  plan.index = static_cast<uint32_t>(index_);
  plan.position = static_cast<uint32_t>(num_tokens);
  plan.num_logprobs = num_logprobs;
  plan.forced_token = forced_token;
  plan.bias = spec_->bias;
  if (spec_->penalized) plan.counts = counts_.counts();
  if (num_generated() < spec_->min_tokens) plan.banned = spec_->stop_ids;
  step->plans.push_back(plan);
  ++num_plans_;
}

bool Sequence::Settle(int64_t num_rows, std::span<const SampledToken> sampled,
                      GenerateChunk* chunk) {
  num_computed += num_rows;
  const bool samples = num_computed == num_tokens;
  Check(sampled.size() == num_plans_ && num_plans_ >= (samples ? 1u : 0u),
        "a step answers every sampling plan");
  for (const SampledToken& forced : sampled.first(num_plans_ - (samples ? 1 : 0))) {
    prompt_logprobs_.push_back(Describe(forced));
    ++prompt_logprobs_taken_;
  }
  if (!samples) return false;
  chunk->index = index_;
  chunk->prompt_logprobs = std::exchange(prompt_logprobs_, {});
  TakeToken(sampled.back(), chunk);
  return finished_ || !chunk->token_ids.empty() || !chunk->text.empty() ||
         !chunk->prompt_logprobs.empty();
}

void Sequence::TakeToken(const SampledToken& sampled, GenerateChunk* chunk) {
  const int32_t id = sampled.token;
  tokens_.push_back(id);
  ++num_tokens;
  const bool may_stop = num_generated() > spec_->min_tokens;
  std::optional<TokenLogprobs> logprobs;
  if (spec_->sampling.num_logprobs >= 0) logprobs = Describe(sampled);
  if (IsStop(id)) {
    chunk->stop_token_id = id;
    Finish(FinishReason::kStop, chunk);
    if (!spec_->include_stop) return;
    chunk->text += Bytes(id);
    chunk->token_ids.push_back(id);
    if (logprobs.has_value()) chunk->logprobs.push_back(*std::move(logprobs));
    return;
  }
  if (spec_->penalized) counts_.AddOutput(id);
  chunk->stop_text = stream_.Push(id, std::move(logprobs), may_stop, chunk);
  if (chunk->stop_text.has_value()) {
    chunk->finish_reason = FinishReason::kStop;
    finished_ = true;
  } else if (num_generated() == spec_->max_tokens) {
    Finish(FinishReason::kLength, chunk);
  }
}

void Sequence::Finish(FinishReason reason, GenerateChunk* chunk) {
  // What was held back may, as its last half character becomes U+FFFD, complete a stop string.
  if (std::optional<std::string> stop = stream_.Finish(chunk); stop.has_value()) {
    reason = FinishReason::kStop;
    if (!chunk->stop_token_id.has_value()) chunk->stop_text = std::move(stop);
  }
  chunk->finish_reason = reason;
  finished_ = true;
}

TokenLogprobs Sequence::Describe(const SampledToken& sampled) const {
  TokenLogprobs described{sampled.token, Bytes(sampled.token), sampled.logprob, {}};
  described.top.reserve(sampled.top.size());
  for (const TokenLogprob& top : sampled.top) {
    described.top.push_back({top.token, Bytes(top.token), top.logprob});
  }
  return described;
}

// Logits may be wider than the tokenizer; what lies past it has no bytes.
std::string Sequence::Bytes(int32_t id) const {
  const Tokenizer* const tokenizer = spec_->tokenizer;
  if (tokenizer == nullptr || id >= tokenizer->vocab_size()) return {};
  return tokenizer->TokenBytes(id, /*first=*/false);
}

bool Sequence::IsStop(int32_t id) const {
  return std::find(spec_->stop_ids.begin(), spec_->stop_ids.end(), id) != spec_->stop_ids.end();
}

}  // namespace nibble
