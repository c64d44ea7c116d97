// A few named threads with one bounded queue: for what may wait a little and so must not run on
// gRPC's threads or the engine's. Knows nothing of what it runs.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace nibble {

using Task = absl::AnyInvocable<void()>;

// Thread-safe. Tasks start in the order in which they came.
class Workers {
 public:
  // name: at most 12 characters, shown by the system with a number. max_queued: tasks that wait.
  Workers(const std::string& name, int num_threads, size_t max_queued);
  // Runs what is queued, then joins. No task may post to it meanwhile.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // False, and nothing is kept, when max_queued tasks wait already. Never waits.
  [[nodiscard]] bool TryPost(Task task);

 private:
  void Run();

  const size_t max_queued_;
  absl::Mutex mutex_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// Names the calling thread for ps, top and gdb; longer names are cut at 15 characters.
void NameThisThread(const std::string& name);

}  // namespace nibble
