// The step planner: pages for who runs, one row for who decodes, the rest for prompts in order.
#include "engine/scheduler/scheduler.h"

#include <algorithm>

#include "engine/check.h"

namespace nibble {

void Scheduler::Add(Schedulable* sequence) {
  Check(PageTable::PagesFor(sequence->num_tokens) <= pool_->num_pages(),
        "a sequence fits the pool alone");
  Check(waiting_.insert(sequence).second, "ranks are unique");
}

void Scheduler::Remove(Schedulable* sequence) {
  if (sequence->running) {
    running_.erase(std::find(running_.begin(), running_.end(), sequence));
    sequence->running = false;
    sequence->pages.Clear();
  } else {
    waiting_.erase(sequence);
  }
}

void Scheduler::Plan(const PlanLimits& limits, StepPlan* plan) {
  ++step_;
  first_turn_ = turn_ + 1;
  plan->parts.clear();
  plan->num_rows = plan->decode_rows = plan->preemptions = 0;
  GrowRunning(plan);
  AdmitBetterRanked(limits, plan);
  // Prompts keep a quarter of the step, or every other step of one row, so that a crowd of
  // decoders cannot shut newcomers out; what they leave goes to the crowd.
  int64_t decode_rows = limits.max_rows;
  if (PrefillPending()) {
    decode_rows -= limits.max_rows > 1 ? std::max<int64_t>(1, limits.max_rows / 4)
                                       : static_cast<int64_t>(step_ % 2);
  }
  PlanDecodes(decode_rows, plan);
  PlanPrefills(limits, plan);
  PlanDecodes(limits.max_rows - plan->num_rows, plan);
}

// Every running sequence gets the page for its next position, best rank first.
void Scheduler::GrowRunning(StepPlan* plan) {
  for (size_t i = 0; i < running_.size(); ++i) {
    Schedulable* const sequence = running_[i];
    while (sequence->running && !sequence->pages.TryGrow(sequence->num_tokens)) {
      Check(running_.size() > 1, "a sequence fits the pool alone");
      Preempt(running_.back(), plan);
    }
  }
}

bool Scheduler::PrefillPending() const {
  return !waiting_.empty() || std::any_of(running_.begin(), running_.end(),
                                          [](const auto* s) { return !s->decoding(); });
}

void Scheduler::PlanDecodes(int64_t max_rows, StepPlan* plan) {
  if (max_rows <= 0) return;
  decoding_.clear();
  for (Schedulable* sequence : running_) {
    if (sequence->decoding() && sequence->last_turn < first_turn_) decoding_.push_back(sequence);
  }
  if (static_cast<int64_t>(decoding_.size()) > max_rows) {
    std::sort(decoding_.begin(), decoding_.end(),
              [](const auto* a, const auto* b) { return a->last_turn < b->last_turn; });
    decoding_.resize(static_cast<size_t>(max_rows));
  }
  for (Schedulable* sequence : decoding_) AddRows(sequence, 1, plan);
  plan->decode_rows += static_cast<int64_t>(decoding_.size());
}

void Scheduler::PlanPrefills(const PlanLimits& limits, StepPlan* plan) {
  for (Schedulable* sequence : running_) {
    if (plan->num_rows == limits.max_rows) return;
    if (sequence->decoding()) continue;
    AddRows(sequence, std::min(sequence->num_remaining(), limits.max_rows - plan->num_rows), plan);
  }
  while (plan->num_rows < limits.max_rows && !waiting_.empty()) {
    Schedulable* const sequence = *waiting_.begin();
    if (!TryAdmit(sequence, limits)) return;
    AddRows(sequence, std::min(sequence->num_remaining(), limits.max_rows - plan->num_rows), plan);
  }
}

// A waiting sequence of better rank than a running one may take its place, one a step.
void Scheduler::AdmitBetterRanked(const PlanLimits& limits, StepPlan* plan) {
  if (waiting_.empty() || running_.empty()) return;
  Schedulable* const sequence = *waiting_.begin();
  if (running_.back()->rank < sequence->rank) return;
  if (TryMakeRoom(*sequence, limits, plan)) Start(sequence);
}

// Admission grants the pages of every token that the sequence already has and leaves one free page
// for each running one, or the newcomer's first tokens would soon cost someone a preemption.
bool Scheduler::Fits(int64_t wanted_pages, int64_t free_pages, int64_t running,
                     const PlanLimits& limits) const {
  if (running == 0) return true;
  return running < limits.max_running && free_pages >= wanted_pages + running;
}

bool Scheduler::TryAdmit(Schedulable* sequence, const PlanLimits& limits) {
  const int64_t wanted = PageTable::PagesFor(sequence->num_tokens);
  const int64_t running = static_cast<int64_t>(running_.size());
  if (!Fits(wanted, pool_->num_free(), running, limits)) return false;
  Start(sequence);
  return true;
}

// Preempts worse-ranked sequences until `sequence` fits, or nobody if that is not enough.
bool Scheduler::TryMakeRoom(const Schedulable& sequence, const PlanLimits& limits, StepPlan* plan) {
  const int64_t wanted = PageTable::PagesFor(sequence.num_tokens);
  int64_t stay = static_cast<int64_t>(running_.size());
  int64_t free = pool_->num_free();
  while (!Fits(wanted, free, stay, limits)) {
    const Schedulable* const worst = running_[static_cast<size_t>(stay - 1)];
    if (worst->rank < sequence.rank) return false;
    free += worst->pages.size();
    --stay;
  }
  while (static_cast<int64_t>(running_.size()) > stay) Preempt(running_.back(), plan);
  return true;
}

void Scheduler::Start(Schedulable* sequence) {
  Check(sequence->pages.TryGrow(sequence->num_tokens), "an admitted sequence finds its pages");
  waiting_.erase(sequence);
  sequence->running = true;
  running_.insert(std::upper_bound(running_.begin(), running_.end(), sequence, ByRank()), sequence);
}

void Scheduler::Preempt(Schedulable* sequence, StepPlan* plan) {
  Check(running_.back() == sequence, "the worst-ranked is preempted");
  running_.pop_back();
  sequence->running = false;
  sequence->pages.Clear();
  sequence->num_computed = 0;
  ++sequence->preemptions;
  ++plan->preemptions;
  waiting_.insert(sequence);
}

void Scheduler::AddRows(Schedulable* sequence, int64_t num_rows, StepPlan* plan) {
  sequence->last_turn = ++turn_;
  plan->parts.push_back({sequence, num_rows});
  plan->num_rows += num_rows;
}

}  // namespace nibble
