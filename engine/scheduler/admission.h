// The bounded queue before the engine: counts what waits, refuses what would be too much, and says
// when to come back. Holds no request.
#pragma once

#include <cstdint>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace nibble {

struct AdmissionLimits {
  int64_t max_requests = 0;
  int64_t max_tokens = 0;
};

// Of one model and operation. Thread-safe: submitting threads enter, the engine thread leaves.
class Admission {
 public:
  explicit Admission(AdmissionLimits limits) : limits_(limits) {}

  // What TryEnter would say of the smallest request: asked before a prompt is encoded in vain.
  absl::Status CheckRoom(absl::Time now) const;
  // A request of `tokens` rows joins the queue. An empty queue takes any one request.
  // Errors: RESOURCE_EXHAUSTED (QUEUE_FULL) with the time in which the queue should have emptied.
  absl::Status TryEnter(int64_t tokens, absl::Time now);
  // It left the queue: its first row is computed.
  void Start(int64_t tokens, absl::Time now);
  // It left the queue without having been served.
  void Withdraw(int64_t tokens);

  int64_t waiting_requests() const;
  int64_t waiting_tokens() const;

 private:
  absl::Status CheckRoomFor(int64_t tokens, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration RetryAfter(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Decay(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const AdmissionLimits limits_;
  mutable std::mutex mutex_;
  int64_t requests_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  // How fast the queue empties: what started, with older starts weighing less.
  double requests_per_s_ ABSL_GUARDED_BY(mutex_) = 0;
  double tokens_per_s_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time rated_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace nibble
