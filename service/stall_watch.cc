// One pass over the streams; see the header.
#include "service/stall_watch.h"

#include <utility>

#include "service/generate_reactor.h"

namespace nibble {

void StallWatch::Add(std::weak_ptr<GenerateReactor> stream) {
  absl::MutexLock lock(&mutex_);
  streams_.push_back(std::move(stream));
}

void StallWatch::Check(absl::Time now) {
  std::vector<std::shared_ptr<GenerateReactor>> alive;
  {
    absl::MutexLock lock(&mutex_);
    std::erase_if(streams_, [&](const std::weak_ptr<GenerateReactor>& entry) {
      std::shared_ptr<GenerateReactor> stream = entry.lock();
      if (stream == nullptr) return true;
      alive.push_back(std::move(stream));
      return false;
    });
  }
  for (const std::shared_ptr<GenerateReactor>& stream : alive) stream->CheckStall(now, limit_);
}

}  // namespace nibble
