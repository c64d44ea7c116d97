// Which rows of which sequences the next step of one generative model computes, and who gets the
// pages. Pure planning: no I/O, no threads, no clock, no tokens' meaning.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "engine/kvcache/page_pool.h"
#include "engine/scheduler/rank.h"

namespace nibble {

// What planning knows of one sequence. Its rows num_computed … num_tokens-1 are still to be
// computed: a whole prompt, the one token that was just sampled, or after a preemption both again.
struct Schedulable {
  explicit Schedulable(PagePool* pool) : pages(pool) {}

  Rank rank;
  int64_t num_tokens = 0;    // prompt and generated
  int64_t num_computed = 0;  // positions whose keys and values are in pages
  PageTable pages;
  bool running = false;     // holds pages
  uint64_t last_turn = 0;   // when it last had rows; whoever waited longest decodes first
  int64_t preemptions = 0;  // times its pages were taken

  int64_t num_remaining() const { return num_tokens - num_computed; }
  bool decoding() const { return num_remaining() == 1 && num_computed > 0; }
};

struct PlannedRows {
  Schedulable* sequence = nullptr;
  int64_t num_rows = 0;  // from num_computed on
};

// Reused between steps.
struct StepPlan {
  std::vector<PlannedRows> parts;
  int64_t num_rows = 0;
  int64_t decode_rows = 0;
  int64_t preemptions = 0;
};

struct PlanLimits {
  int64_t max_rows = 0;  // of this step: what memory and the time budget allow
  int64_t max_running = 0;
};

// Thread rule: the engine thread.
// 1. Sequences are served in the order of their ranks; nobody is admitted past one that waits.
// 2. Running sequences hold all pages that their computed positions need, waiting ones none.
// 3. When pages run out, the worst-ranked running sequence loses its pages and waits again, its
//    tokens kept: its rows are computed again later (preemption by recompute).
// 4. The best-ranked sequence always gets rows or pages, so every plan with sequences makes
//    progress. A sequence must fit the pool alone.
class Scheduler {
 public:
  explicit Scheduler(PagePool* pool) : pool_(pool) {}

  void Add(Schedulable* sequence);     // waits from now on
  void Remove(Schedulable* sequence);  // in any state; its pages are free
  void Plan(const PlanLimits& limits, StepPlan* plan);

  bool empty() const { return waiting_.empty() && running_.empty(); }
  const std::vector<Schedulable*>& running() const { return running_; }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }

 private:
  struct ByRank {
    bool operator()(const Schedulable* a, const Schedulable* b) const { return a->rank < b->rank; }
  };

  void GrowRunning(StepPlan* plan);
  void AdmitBetterRanked(const PlanLimits& limits, StepPlan* plan);
  void PlanDecodes(int64_t max_rows, StepPlan* plan);
  void PlanPrefills(const PlanLimits& limits, StepPlan* plan);
  bool TryAdmit(Schedulable* sequence, const PlanLimits& limits);
  bool TryMakeRoom(const Schedulable& sequence, const PlanLimits& limits, StepPlan* plan);
  bool Fits(int64_t wanted_pages, int64_t free_pages, int64_t running,
            const PlanLimits& limits) const;
  void Start(Schedulable* sequence);
  void Preempt(Schedulable* sequence, StepPlan* plan);
  void AddRows(Schedulable* sequence, int64_t num_rows, StepPlan* plan);
  bool PrefillPending() const;

  PagePool* const pool_;
  std::set<Schedulable*, ByRank> waiting_;
  std::vector<Schedulable*> running_;  // by rank
  std::vector<Schedulable*> decoding_;
  uint64_t step_ = 0;
  uint64_t turn_ = 0;        // counts every grant of rows
  uint64_t first_turn_ = 0;  // of this step
};

}  // namespace nibble
