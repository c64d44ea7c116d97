// The engine thread's life: take in, end what is over, give one class of work a step, repeat.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/inbox.h"
#include "engine/job.h"
#include "engine/scheduler/fair_share.h"
#include "engine/work.h"
#include "kernels/backend.h"

namespace nibble {

// Thread rule: all of it belongs to one thread, the one that calls Run (tests: RunOnce); others
// reach it through the inbox.
// 1. Every job that comes in ends exactly once: its pages are free and its counts published before
//    its sink hears OnDone, and its lease ends after that.
// 2. A cancellation or a deadline takes effect before the next step begins.
// 3. With nothing to do the thread waits on the inbox and the backend's threads are parked.
class EngineLoop {
 public:
  // `clock` also serves the inbox's senders.
  EngineLoop(Backend* backend, std::function<absl::Time()> clock, double step_budget_ms);
  ~EngineLoop();

  Inbox& inbox() { return inbox_; }
  const Inbox& inbox() const { return inbox_; }

  // Until the inbox is stopped and nothing runs.
  void Run();
  // One iteration. False: there is nothing to do.
  bool RunOnce();
  size_t num_jobs() const { return jobs_.size(); }

 private:
  Work& WorkOf(const Job& job) const;
  void TakeMail();
  void AddJob(std::unique_ptr<Job> job);
  void Cancel(const Cancellation& cancellation);
  void Expire();
  void RunStep();
  void EndJobs();
  void Forget(const JobEnd& end, absl::Time now);

  Backend* const backend_;
  const std::function<absl::Time()> clock_;
  const double step_budget_s_;
  Inbox inbox_;

  std::unordered_map<RequestId, std::unique_ptr<Job>> jobs_;
  std::set<std::pair<absl::Time, RequestId>> deadlines_;  // finite ones
  FairShare share_;
  uint64_t arrivals_ = 0;

  // Reused between iterations.
  Mail mail_;
  std::vector<JobEnd> ended_;
  std::vector<std::unique_ptr<Job>> leaving_;
  std::vector<ServedModel*> touched_;  // their counts have changed
};

}  // namespace nibble
