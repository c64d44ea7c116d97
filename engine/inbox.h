// What other threads have for the engine thread: new requests, cancellations, the end. The one
// hand-over, and the one place where an idle engine waits.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/job.h"

namespace nibble {

class ServedModel;

// Cancels one request, or every request of a model, or every request.
struct Cancellation {
  RequestId id = 0;                    // 0: not one request
  const ServedModel* model = nullptr;  // null and id 0: all
  absl::Status status;
};

// Requests come before the cancellations that were sent after them.
struct Mail {
  std::vector<std::unique_ptr<Job>> jobs;
  std::vector<Cancellation> cancellations;

  bool empty() const { return jobs.empty() && cancellations.empty(); }
};

// Thread-safe; Take and Wait are the engine thread's.
class Inbox {
 public:
  void Send(std::unique_ptr<Job> job, absl::Time now);
  void Send(Cancellation cancellation, absl::Time now);
  void Stop();

  // Replaces *mail, whose memory is reused. `now` marks progress; without mail and with nothing
  // `busy` the engine is idle.
  void Take(absl::Time now, bool busy, Mail* mail);
  // Waits for mail without using the CPU. False: stopped, and no mail.
  bool Wait();

  // How long ago the engine thread last came by, if it has something to do.
  absl::Duration StalledFor(absl::Time now) const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time progress_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace nibble
