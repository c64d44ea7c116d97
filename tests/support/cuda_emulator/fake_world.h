// The pretended machine's state: streams as queues of work, memory, failures to come. Work is done
// as late as a real program could see it: when somebody synchronises, waits or reads back. Internal
// to the fake runtime.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tests/support/cuda_emulator/fake_memory.h"
#include "tests/support/cuda_emulator/fake_runtime.h"

namespace nibble::cuda {
namespace fake {

struct EventTime {
  Stream* stream = nullptr;
  uint64_t sequence = 0;  // of the record in its stream; 0: never recorded
  bool done = false;
  std::chrono::steady_clock::time_point time;
};

// One piece of a stream's work.
struct Work {
  enum class Kind { kKernel, kGemm, kCopy, kFill, kRecord, kWait };
  Kind kind = Kind::kCopy;
  KernelCall kernel;
  std::shared_ptr<std::vector<std::unique_ptr<char[]>>> args;  // the bytes of each
  GemmCall gemm;
  void* to = nullptr;
  const void* from = nullptr;
  std::shared_ptr<std::vector<char>> bytes;  // of a copy whose source was ordinary host memory
  int64_t size = 0;
  uint8_t value = 0;
  std::shared_ptr<EventTime> event;  // of a record
  Stream* awaited = nullptr;         // of a wait
  uint64_t sequence = 0;
};

}  // namespace fake

struct Stream {
  std::deque<fake::Work> queue;
  uint64_t issued = 0;
  uint64_t done = 0;
  Graph* capture = nullptr;
  std::thread::id capturer;
  bool capture_broken = false;
  bool has_workspace = false;
};

struct Event {
  std::shared_ptr<fake::EventTime> time = std::make_shared<fake::EventTime>();
};

struct Graph {
  std::vector<fake::Work> work;
};

namespace fake {

// Everything but Lock() needs the lock.
class World {
 public:
  // The one machine of the process, locked.
  static World& Get();
  using Locked = std::unique_lock<std::recursive_mutex>;
  Locked Lock() { return Locked(lock_); }

  // Counts a call and says whether it fails.
  absl::Status Enter(Call call);
  // A call that a capture does not allow ends the caller's captures with an error.
  absl::Status RefuseInCapture(Call call);
  // Work for the stream, or for the graph that it records.
  void Issue(Stream* stream, Work work);
  // Does a stream's work up to a piece of it.
  void RunUntil(Stream* stream, uint64_t sequence);
  void RunEverything();
  // An error of work that nobody has been told.
  absl::Status TakeDeferred();

  Machine machine;
  std::vector<Failure> failures;
  Counts counts;
  bool lost = false;
  absl::Status deferred;
  GuardedMemory device;
  GuardedMemory host;
  std::set<Stream*> streams;
  int64_t events = 0;
  int64_t graphs = 0;
  uint64_t seed = 1;
  uint64_t num_launches = 0;

 private:
  // Takes a stream's next piece of work; false if it is not to be done.
  bool Take(Stream* stream, Work* work);
  // Whether the next kernel begins before the one just taken is done.
  bool NextOverlaps(const Stream& stream, uint64_t sequence);
  void RunWork(const Work& work);
  void RunKernel(const Work& work, const std::function<void()>& previous);

  std::recursive_mutex lock_;
};

// As runtime.cc words it.
absl::Status Error(Call call, absl::string_view text);
// What a call that a test made fail returns.
absl::Status FailureStatus(Call call, bool sticky);

}  // namespace fake
}  // namespace nibble::cuda
