// A thread that looks now and then: for streams that are not read, and for an engine that hangs.
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace nibble {

class Watchdog {
 public:
  struct Hooks {
    std::function<absl::Duration()> stalled_for;  // since the last sign of life; zero when idle
    std::function<void(bool stalled)> on_change;  // told once per change
    std::function<void(absl::Time now)> on_tick;
  };

  // limit: a longer silence is a stall. Looks every `period`.
  Watchdog(absl::Duration limit, absl::Duration period, Hooks hooks);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void Run();

  const absl::Duration limit_;
  const absl::Duration period_;
  const Hooks hooks_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace nibble
