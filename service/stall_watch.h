// Remembers the streams that run, so that one whose reader does not read is found in time.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace nibble {

class GenerateReactor;

// Thread-safe. Owns no stream.
class StallWatch {
 public:
  // limit: how long one write may take.
  explicit StallWatch(absl::Duration limit) : limit_(limit) {}

  void Add(std::weak_ptr<GenerateReactor> stream);
  // Asks every stream that lives, forgets those that do not. Called now and then.
  void Check(absl::Time now);

 private:
  const absl::Duration limit_;
  absl::Mutex mutex_;
  std::vector<std::weak_ptr<GenerateReactor>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
