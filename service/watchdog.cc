// See the header.
#include "service/watchdog.h"

#include <utility>

#include "service/workers.h"

namespace nibble {

Watchdog::Watchdog(absl::Duration limit, absl::Duration period, Hooks hooks)
    : limit_(limit), period_(period), hooks_(std::move(hooks)), thread_([this] {
        NameThisThread("watchdog");
        Run();
      }) {}

Watchdog::~Watchdog() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void Watchdog::Run() {
  bool was_stalled = false;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), period_)) return;
    }
    const bool stalled = hooks_.stalled_for() > limit_;
    if (stalled != std::exchange(was_stalled, stalled)) hooks_.on_change(stalled);
    hooks_.on_tick(absl::Now());
  }
}

}  // namespace nibble
