// A loaded model and everything that serving it needs: its queue's bounds, its work, its counts.
#pragma once

#include <memory>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "engine/decode_work.h"
#include "engine/encode_work.h"
#include "engine/model/model.h"
#include "engine/request.h"
#include "engine/scheduler/admission.h"
#include "engine/stats.h"

namespace nibble {

// Thread rule: model() is immutable but for its steps, admission() and Stats() are thread-safe, the
// rest belongs to the engine thread. Dies when nothing holds a lease of it.
class ServedModel {
 public:
  ServedModel(std::unique_ptr<Model> model, AdmissionLimits limits);

  const Model& model() const { return *model_; }
  Admission& admission() { return admission_; }
  // What was last published, with the queue as it is now.
  ModelStats Stats() const;

  // --- engine thread ---
  Work& work(Operation op);
  PagePool* pages() { return &pool_; }
  ModelStats& live_stats() { return live_; }
  // Makes the live counts visible to Stats().
  void Publish();

 private:
  const std::unique_ptr<Model> model_;
  Admission admission_;
  PagePool pool_;
  ModelStats live_;
  DecodeWork decode_;
  EncodeWork encode_;
  mutable std::mutex mutex_;
  ModelStats published_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
