// One class of work on the engine thread: the answers or the embeddings of one model, a step at a
// time. The loop chooses whose turn it is and ends requests; work plans, runs and settles.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/job.h"
#include "engine/scheduler/fair_share.h"
#include "engine/stats.h"

namespace nibble {

// A request whose end is decided; the loop carries it out.
struct JobEnd {
  Job* job = nullptr;
  absl::Status status;
};

struct StepContext {
  const std::function<absl::Time()>& clock;
  double budget_s = 0;         // no step is planned longer (StepCost)
  std::vector<JobEnd>* ended;  // out
};

// Thread rule: the engine thread.
class Work : public FairShare::Account {
 public:
  explicit Work(ServedModel* served) : served_(served) {}
  virtual ~Work() = default;

  ServedModel* served() const { return served_; }
  virtual void Add(Job* job) = 0;
  virtual void Remove(Job* job) = 0;  // in any state: its pages are free
  virtual bool empty() const = 0;
  // Returns the seconds that it took.
  virtual double RunStep(const StepContext& context) = 0;

 private:
  ServedModel* const served_;
};

// Decides a job's end once.
inline void End(Job* job, absl::Status status, std::vector<JobEnd>* ended) {
  if (job->ended) return;
  job->ended = true;
  ended->push_back({job, std::move(status)});
}

}  // namespace nibble
