// Threads that share out the units of one operation at a time. Knows no operation.
//
// The caller of Run is worker 0; workers 1 … n-1 are threads of the pool. Worker i is pinned to CPU
// i of the allowed set, unless there are more threads than CPUs; a caller that is the process's
// main thread stays free, because threads that it starts would inherit its one CPU. A worker
// without work spins for at most kSpin, then parks: an idle pool uses no CPU.
//
// Invariants:
//  1. Units are claimed one by one from `ticket_`, whose upper half is the number of the job; a
//     claim succeeds only while that job is the current one, so a late worker cannot touch another.
//  2. The fields of a job change only between jobs: after every unit of the last one was done, and
//     while `ticket_` is closed, so that a worker that comes late cannot pair an old unit with
//     them.
//  3. Which worker runs a unit is not determined: results must not depend on it.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace nibble {

class ThreadPool {
 public:
  static constexpr std::chrono::microseconds kSpin{50};

  // num_threads >= 1, the caller included.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls f(unit, worker) for every unit in [0, num_units) and returns when all are done. One
  // caller at a time; f must not call Run. num_units < 2^31.
  template <typename F>
  void Run(int64_t num_units, F&& f) {
    using Callable = std::remove_reference_t<F>;
    const Function call = [](void* context, int64_t unit, int worker) {
      (*static_cast<Callable*>(context))(unit, worker);
    };
    RunUnits(num_units, call, const_cast<std::remove_const_t<Callable>*>(&f));
  }

  // Parks the workers now instead of after kSpin.
  void Park();
  // How many workers are parked: for tests.
  int num_parked() const { return parked_.load(); }

 private:
  using Function = void (*)(void* context, int64_t unit, int worker);

  void PinCaller();
  void RunUnits(int64_t num_units, Function function, void* context);
  void Publish(int64_t num_units, Function function, void* context);
  void WorkOn(uint32_t job, int worker);
  void WorkerLoop(int worker);
  bool SpinForJob(uint32_t last_job) const;
  void WaitForJob(uint32_t last_job);

  static uint32_t JobOf(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }

  // No unit has this number: nothing of the job can be claimed.
  static constexpr uint32_t kClosed = 0xFFFFFFFF;

  // Job number << 32 | next unit to claim, or kClosed while the next job is being written.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int64_t> num_units_{0};
  std::atomic<Function> function_{nullptr};
  std::atomic<void*> context_{nullptr};

  std::atomic<bool> park_now_{false};
  std::atomic<bool> stop_{false};
  std::atomic<int> parked_{0};
  std::mutex mutex_;  // orders parking with waking; guards nothing else
  std::condition_variable wake_;
  std::vector<int> cpus_;  // by worker; empty: nobody is pinned
  pthread_t caller_ = 0;   // the last one
  std::vector<std::thread> threads_;
};

}  // namespace nibble
