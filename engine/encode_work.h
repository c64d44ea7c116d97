// The embeddings of one model: which inputs next (plan), the model's step (run), vectors to their
// requests (settle).
#pragma once

#include <vector>

#include "engine/model/model.h"
#include "engine/scheduler/admission.h"
#include "engine/scheduler/embed_queue.h"
#include "engine/scheduler/step_cost.h"
#include "engine/stats.h"
#include "engine/work.h"

namespace nibble {

// Thread rule: the engine thread. Everything it is given outlives it.
class EncodeWork final : public Work {
 public:
  EncodeWork(ServedModel* served, Model* model, Admission* admission, ModelStats* stats)
      : Work(served), model_(model), admission_(admission), stats_(stats) {}

  void Add(Job* job) override;
  void Remove(Job* job) override;
  bool empty() const override { return queue_.empty(); }
  double RunStep(const StepContext& context) override;

 private:
  void Plan(double budget_s, absl::Time now);
  void Settle(const StepContext& context, absl::Time now);
  void Start(EmbedJob* job, absl::Time now);
  void Answer(EmbedJob* job, const StepContext& context, absl::Time now);

  Model* const model_;
  Admission* const admission_;
  ModelStats* const stats_;
  EmbedQueue queue_;
  StepCost cost_;
  std::vector<PackedInput> taken_;
  EncodeStep step_;
};

}  // namespace nibble
