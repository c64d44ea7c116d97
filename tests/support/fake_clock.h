// Time that moves only when a test or a fake model says so.
#pragma once

#include <atomic>

#include "absl/time/time.h"

namespace nibble {

class FakeClock {
 public:
  absl::Time Now() const { return absl::FromUnixNanos(nanos_.load()); }
  void Advance(absl::Duration duration) { nanos_ += absl::ToInt64Nanoseconds(duration); }

 private:
  std::atomic<int64_t> nanos_ = int64_t{1'000'000'000} * 1'000'000'000;
};

}  // namespace nibble
