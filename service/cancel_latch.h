// Joins an engine request's id, which is known late, with a wish to cancel it, which may come
// early.
#pragma once

#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"

namespace nibble {

// Thread-safe.
class CancelLatch {
 public:
  explicit CancelLatch(Engine* engine) : engine_(engine) {}

  // Ends the request with `status`: now, or as soon as its id is known. The first wish counts.
  void Ask(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (asked_.has_value()) return;
    asked_ = status;
    if (id_.has_value()) engine_->Cancel(*id_, status);
  }

  void SetRequest(RequestId id) {
    absl::MutexLock lock(&mutex_);
    id_ = id;
    if (asked_.has_value()) engine_->Cancel(id, *asked_);
  }

  // What was asked for, if anything: a request not yet submitted need not be.
  std::optional<absl::Status> asked() const {
    absl::MutexLock lock(&mutex_);
    return asked_;
  }

 private:
  Engine* const engine_;
  mutable absl::Mutex mutex_;
  std::optional<RequestId> id_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> asked_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
