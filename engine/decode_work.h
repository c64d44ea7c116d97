// The answers of one model: which rows next (plan), the model's step (run), tokens to their clients
// (settle).
#pragma once

#include "engine/kvcache/page_pool.h"
#include "engine/model/model.h"
#include "engine/scheduler/admission.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/step_cost.h"
#include "engine/stats.h"
#include "engine/work.h"

namespace nibble {

// Thread rule: the engine thread. Everything it is given outlives it.
class DecodeWork final : public Work {
 public:
  DecodeWork(ServedModel* served, Model* model, PagePool* pool, Admission* admission,
             ModelStats* stats);

  void Add(Job* job) override;
  void Remove(Job* job) override;
  bool empty() const override { return scheduler_.empty(); }
  double RunStep(const StepContext& context) override;

 private:
  void Plan(double budget_s);
  void Settle(const StepContext& context, absl::Time began, absl::Time now);
  void Start(GenerateJob* job, absl::Time now);
  void MarkDelivery(Sequence* sequence, absl::Time now);
  void FinishAnswer(Sequence* sequence, GenerateChunk* chunk, const StepContext& context);
  void CountToken(Sequence* sequence, absl::Time now);

  Model* const model_;
  Admission* const admission_;
  ModelStats* const stats_;
  Scheduler scheduler_;
  StepCost cost_;
  StepPlan plan_;
  DecodeStep step_;
};

}  // namespace nibble
