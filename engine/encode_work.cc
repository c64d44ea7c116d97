// Packs, encodes and hands out.
#include "engine/encode_work.h"

#include <algorithm>
#include <utility>

namespace nibble {

void EncodeWork::Add(Job* job) {
  ++stats_->waiting[static_cast<size_t>(Operation::kEmbed)];
  queue_.Add(static_cast<EmbedJob*>(job));
}

void EncodeWork::Remove(Job* job) { queue_.Remove(static_cast<EmbedJob*>(job)); }

double EncodeWork::RunStep(const StepContext& context) {
  const absl::Time began = context.clock();
  Plan(context.budget_s, began);
  const absl::Status status = model_->Encode(&step_);
  const absl::Time now = context.clock();
  const double seconds = std::max(0.0, absl::ToDoubleSeconds(now - began));
  const int64_t rows = static_cast<int64_t>(step_.tokens.size());
  cost_.Observe(rows, seconds);
  stats_->step_seconds.try_emplace("embed", LatencyBounds()).first->second.Observe(seconds);
  stats_->step_rows.Observe(static_cast<double>(rows));
  if (status.ok()) {
    Settle(context, now);
  } else {
    for (const PackedInput& taken : taken_) {
      End(static_cast<EmbedJob*>(taken.request), status, context.ended);
    }
  }
  return seconds;
}

void EncodeWork::Plan(double budget_s, absl::Time now) {
  const StepLimits& limits = model_->limits();
  queue_.Plan({cost_.RowsWithin(budget_s, limits.max_rows), limits.max_rows, limits.max_sequences},
              &taken_);
  const EncodeSettings& settings = taken_.front().request->settings;
  step_.pooling = settings.pooling;
  step_.normalize = settings.normalize;
  step_.dimensions = settings.dimensions;
  step_.tokens.clear();
  step_.sequences.clear();
  for (const PackedInput& taken : taken_) {
    auto* const job = static_cast<EmbedJob*>(taken.request);
    if (!job->started) Start(job, now);
    const std::vector<int32_t>& ids = job->inputs[taken.input];
    step_.sequences.push_back({.first_row = static_cast<int64_t>(step_.tokens.size()),
                               .num_rows = static_cast<int64_t>(ids.size())});
    step_.tokens.insert(step_.tokens.end(), ids.begin(), ids.end());
  }
}

void EncodeWork::Start(EmbedJob* job, absl::Time now) {
  constexpr auto kEmbed = static_cast<size_t>(Operation::kEmbed);
  job->started = true;
  job->started_at = now;
  admission_->Start(job->queued_tokens, now);
  --stats_->waiting[kEmbed];
  ++stats_->running[kEmbed];
  stats_->queue_time[kEmbed].Observe(
      std::max(0.0, absl::ToDoubleSeconds(now - job->context.received)));
}

void EncodeWork::Settle(const StepContext& context, absl::Time now) {
  const int64_t dimensions = step_.dimensions == 0 ? model_->config().hidden : step_.dimensions;
  const auto width = static_cast<size_t>(dimensions);
  for (size_t i = 0; i < taken_.size(); ++i) {
    auto* const job = static_cast<EmbedJob*>(taken_[i].request);
    const auto begin = step_.pooled.begin() + static_cast<ptrdiff_t>(i * width);
    job->embeddings[taken_[i].input].values.assign(begin, begin + static_cast<ptrdiff_t>(width));
    if (++job->num_embedded == job->inputs.size()) Answer(job, context, now);
  }
}

void EncodeWork::Answer(EmbedJob* job, const StepContext& context, absl::Time now) {
  constexpr auto kEmbed = static_cast<size_t>(Operation::kEmbed);
  EmbedResult result;
  result.embeddings = std::move(job->embeddings);
  result.usage.prompt_tokens = job->prompt_tokens;
  result.timing.queue_ms = absl::ToDoubleMilliseconds(job->started_at - job->context.received);
  result.timing.prefill_ms = absl::ToDoubleMilliseconds(now - job->started_at);
  result.model = model_->name();
  stats_->prompt_tokens[kEmbed].Observe(static_cast<double>(job->prompt_tokens));
  stats_->prompt_tokens_total[kEmbed] += job->prompt_tokens;
  job->sink->OnEmbedding(std::move(result));
  End(job, absl::OkStatus(), context.ended);
}

}  // namespace nibble
