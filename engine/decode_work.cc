// Continuous batching of one model.
#include "engine/decode_work.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

constexpr auto kGenerate = static_cast<size_t>(Operation::kGenerate);

double SecondsSince(absl::Time from, absl::Time to) {
  return std::max(0.0, absl::ToDoubleSeconds(to - from));
}

Sequence* ToSequence(Schedulable* planned) { return static_cast<Sequence*>(planned); }

const char* PhaseOf(const StepPlan& plan) {
  if (plan.decode_rows == 0) return "prefill";
  return plan.decode_rows == plan.num_rows ? "decode" : "mixed";
}

}  // namespace

DecodeWork::DecodeWork(ServedModel* served, Model* model, PagePool* pool, Admission* admission,
                       ModelStats* stats)
    : Work(served), model_(model), admission_(admission), stats_(stats), scheduler_(pool) {
  const auto rows = static_cast<size_t>(model->limits().max_rows);
  plan_.parts.reserve(rows);
  step_.tokens.reserve(rows);
  step_.sequences.reserve(rows);
  step_.plans.reserve(rows);
  step_.sampled.reserve(rows);
}

void DecodeWork::Add(Job* job) {
  ++stats_->waiting[kGenerate];
  for (Sequence& sequence : static_cast<GenerateJob*>(job)->sequences) scheduler_.Add(&sequence);
}

void DecodeWork::Remove(Job* job) {
  for (Sequence& sequence : static_cast<GenerateJob*>(job)->sequences) {
    if (!sequence.finished()) scheduler_.Remove(&sequence);
  }
}

double DecodeWork::RunStep(const StepContext& context) {
  const absl::Time began = context.clock();
  Plan(context.budget_s);
  const absl::Status status = model_->Decode(&step_);
  const absl::Time now = context.clock();
  const double seconds = SecondsSince(began, now);
  cost_.Observe(plan_.num_rows, seconds);
  stats_->step_seconds.try_emplace(PhaseOf(plan_), LatencyBounds()).first->second.Observe(seconds);
  stats_->step_rows.Observe(static_cast<double>(plan_.num_rows));
  stats_->preemptions_total += plan_.preemptions;
  if (status.ok()) {
    Settle(context, began, now);
  } else {
    for (const PlannedRows& part : plan_.parts) {
      End(ToSequence(part.sequence)->job(), status, context.ended);
    }
  }
  return seconds;
}

void DecodeWork::Plan(double budget_s) {
  const StepLimits& limits = model_->limits();
  scheduler_.Plan({.max_rows = cost_.RowsWithin(budget_s, limits.max_rows),
                   .max_running = std::min(limits.max_sequences, limits.max_rows)},
                  &plan_);
  step_.tokens.clear();
  step_.sequences.clear();
  step_.plans.clear();
  for (const PlannedRows& part : plan_.parts) {
    ToSequence(part.sequence)->AppendRows(part.num_rows, &step_);
  }
}

void DecodeWork::Settle(const StepContext& context, absl::Time began, absl::Time now) {
  std::span<SampledToken> sampled(step_.sampled);
  for (const PlannedRows& part : plan_.parts) {
    Sequence* const sequence = ToSequence(part.sequence);
    GenerateJob* const job = sequence->job();
    if (!job->started) Start(job, began);
    sequence->first_row_at = std::min(sequence->first_row_at, began);
    const size_t num_plans = sequence->num_plans();
    const int64_t generated = sequence->num_generated();
    GenerateChunk chunk;
    const bool any = sequence->Settle(part.num_rows, sampled.first(num_plans), &chunk);
    sampled = sampled.subspan(num_plans);
    if (sequence->num_generated() > generated) CountToken(sequence, now);
    if (any) MarkDelivery(sequence, now);
    if (sequence->finished()) FinishAnswer(sequence, &chunk, context);
    if (any) job->sink->OnChunk(std::move(chunk));
  }
}

// The first row of a request is being computed: it waits no longer.
void DecodeWork::Start(GenerateJob* job, absl::Time now) {
  job->started = true;
  job->started_at = now;
  admission_->Start(job->queued_tokens, now);
  --stats_->waiting[kGenerate];
  ++stats_->running[kGenerate];
  stats_->queue_time[kGenerate].Observe(SecondsSince(job->context.received, now));
}

void DecodeWork::CountToken(Sequence* sequence, absl::Time now) {
  GenerateJob* const job = sequence->job();
  ++stats_->generation_tokens_total;
  if (sequence->num_generated() == 1) {
    sequence->first_token_at = now;
  } else {
    stats_->inter_token_latency.Observe(SecondsSince(sequence->last_token_at, now));
  }
  sequence->last_token_at = job->last_token_at = now;
  if (job->first_token_at <= now) return;
  job->first_token_at = now;
  stats_->prompt_tokens[kGenerate].Observe(static_cast<double>(job->prompt_tokens));
  stats_->prompt_tokens_total[kGenerate] += job->prompt_tokens;
  stats_->prefill_time.Observe(SecondsSince(job->started_at, now));
}

// The client hears of it now. A first token may have been held back for a stop string.
void DecodeWork::MarkDelivery(Sequence* sequence, absl::Time now) {
  GenerateJob* const job = sequence->job();
  sequence->first_chunk_at = std::min(sequence->first_chunk_at, now);
  if (job->delivered) return;
  job->delivered = true;
  stats_->time_to_first_token.Observe(SecondsSince(job->context.received, now));
}

void DecodeWork::FinishAnswer(Sequence* sequence, GenerateChunk* chunk,
                              const StepContext& context) {
  GenerateJob* const job = sequence->job();
  scheduler_.Remove(sequence);
  const absl::Time received = job->context.received;
  chunk->usage.prompt_tokens = sequence->index() == 0 ? job->prompt_tokens : 0;
  chunk->usage.completion_tokens = sequence->num_generated();
  chunk->timing.queue_ms = 1e3 * SecondsSince(received, sequence->first_row_at);
  chunk->timing.prefill_ms = 1e3 * SecondsSince(sequence->first_row_at, sequence->first_token_at);
  chunk->timing.decode_ms = 1e3 * SecondsSince(sequence->first_token_at, sequence->last_token_at);
  chunk->timing.time_to_first_token_ms = 1e3 * SecondsSince(received, sequence->first_chunk_at);
  chunk->model = model_->name();
  chunk->seed = job->spec.sampling.seed;
  ++stats_->finished[chunk->finish_reason == FinishReason::kStop ? "stop" : "length"];
  if (++job->num_finished < job->sequences.size()) return;
  int64_t generated = 0;
  for (const Sequence& each : job->sequences) generated += each.num_generated();
  stats_->generation_tokens.Observe(static_cast<double>(generated));
  stats_->decode_time.Observe(SecondsSince(job->first_token_at, job->last_token_at));
  End(job, absl::OkStatus(), context.ended);
}

}  // namespace nibble
