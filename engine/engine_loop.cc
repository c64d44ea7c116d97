// One iteration after the other.
#include "engine/engine_loop.h"

#include <algorithm>

#include "engine/check.h"
#include "engine/served_model.h"
#include "engine/status.h"

namespace nibble {
namespace {

const char* FinishReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kInternal:
      return "error";
    default:
      return "cancelled";
  }
}

}  // namespace

EngineLoop::EngineLoop(Backend* backend, std::function<absl::Time()> clock, double step_budget_ms)
    : backend_(backend),
      clock_(std::move(clock)),
      step_budget_s_(step_budget_ms / 1e3),
      share_(step_budget_s_) {}

EngineLoop::~EngineLoop() { Check(jobs_.empty(), "an engine dies without requests"); }

void EngineLoop::Run() {
  do {
    while (RunOnce()) {
    }
    backend_->Park();
  } while (inbox_.Wait());
}

bool EngineLoop::RunOnce() {
  TakeMail();
  Expire();
  EndJobs();
  if (share_.empty()) return false;
  RunStep();
  EndJobs();
  return true;
}

Work& EngineLoop::WorkOf(const Job& job) const { return job.lease->work(job.operation); }

void EngineLoop::TakeMail() {
  inbox_.Take(clock_(), !jobs_.empty(), &mail_);
  for (std::unique_ptr<Job>& job : mail_.jobs) AddJob(std::move(job));
  for (const Cancellation& cancellation : mail_.cancellations) Cancel(cancellation);
}

void EngineLoop::AddJob(std::unique_ptr<Job> job) {
  const absl::Time now = clock_();
  const uint64_t arrival = ++arrivals_;
  if (job->operation == Operation::kGenerate) {
    auto* const generate = static_cast<GenerateJob*>(job.get());
    for (Sequence& sequence : generate->sequences) {
      sequence.rank = MakeRank(now, generate->priority, arrival, sequence.index());
    }
  }
  if (job->context.deadline != absl::InfiniteFuture()) {
    deadlines_.emplace(job->context.deadline, job->id);
  }
  Work& work = WorkOf(*job);
  work.Add(job.get());
  share_.Join(&work);
  touched_.push_back(&*job->lease);
  jobs_.emplace(job->id, std::move(job));
}

void EngineLoop::Cancel(const Cancellation& cancellation) {
  if (cancellation.id != 0) {
    const auto it = jobs_.find(cancellation.id);
    if (it != jobs_.end()) End(it->second.get(), cancellation.status, &ended_);
    return;
  }
  for (const auto& [id, job] : jobs_) {
    if (cancellation.model != nullptr && &*job->lease != cancellation.model) continue;
    End(job.get(), cancellation.status, &ended_);
  }
}

void EngineLoop::Expire() {
  const absl::Time now = clock_();
  for (auto it = deadlines_.begin(); it != deadlines_.end() && it->first <= now; ++it) {
    Job* const job = jobs_.at(it->second).get();
    const char* const state = job->started ? "running" : "queued";
    End(job,
        Error(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
              absl::StrCat("the deadline passed while the request was ", state)),
        &ended_);
  }
}

void EngineLoop::RunStep() {
  Work* const work = static_cast<Work*>(share_.Next());
  const double seconds = work->RunStep({clock_, step_budget_s_, &ended_});
  share_.Charge(work, seconds);
  touched_.push_back(work->served());
}

void EngineLoop::EndJobs() {
  if (ended_.empty() && touched_.empty()) return;
  const absl::Time now = clock_();
  for (const JobEnd& end : ended_) Forget(end, now);
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  for (ServedModel* model : touched_) model->Publish();
  touched_.clear();
  for (const JobEnd& end : ended_) end.job->sink->OnDone(end.status);
  ended_.clear();
  leaving_.clear();
}

// Takes a job out of every book; it stays alive until its sink has heard.
void EngineLoop::Forget(const JobEnd& end, absl::Time now) {
  Job& job = *end.job;
  ServedModel& model = *job.lease;
  Work& work = WorkOf(job);
  work.Remove(&job);
  if (work.empty()) share_.Leave(&work);
  const auto op = static_cast<size_t>(job.operation);
  ModelStats& stats = model.live_stats();
  if (job.started) {
    --stats.running[op];
  } else {
    --stats.waiting[op];
    model.admission().Withdraw(job.queued_tokens);
  }
  if (end.status.ok()) {
    stats.e2e_latency[op].Observe(std::max(0.0, absl::ToDoubleSeconds(now - job.context.received)));
  } else {
    stats.finished[FinishReasonOf(end.status)] += job.num_unfinished();
  }
  touched_.push_back(&model);
  deadlines_.erase({job.context.deadline, job.id});
  const auto it = jobs_.find(job.id);
  leaving_.push_back(std::move(it->second));
  jobs_.erase(it);
}

}  // namespace nibble
