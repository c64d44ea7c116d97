// Threads that share out the units of one operation at a time. Knows no operation.
//
// The caller of Run is worker 0; workers 1 … n-1 are threads of the pool. Worker i is pinned to CPU
// i of the allowed set, unless there are more threads than CPUs; a caller that is the process's
// main thread stays free, because threads that it starts would inherit its one CPU. A worker
// without work spins for at most kSpin, then parks: an idle pool uses no CPU.
//
// A job's units are cut into one range for each worker, so that what lies side by side in memory is
// read by one thread in order; a worker that has done its own range takes units of the others'.
//
// Invariants:
//  1. Units are claimed one by one from the ticket of their range, whose upper half is the number
//  of
//     the job; a claim succeeds only while that job is the ticket's, so a late worker cannot touch
//     another.
//  2. What a job is lies in one of two places, by its number's parity, and is written before any
//     ticket is of that job. Whoever reads it late, after the place went to the job after the next,
//     finds a ticket that has moved on, and fails to claim.
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

  int num_threads() const { return static_cast<int>(ranges_.size()); }

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

  // Job number << 32 | next unit to claim of one worker's range, in a cache line of its own.
  struct alignas(64) Range {
    std::atomic<uint64_t> ticket{0};
  };
  struct alignas(64) Job {
    std::atomic<int64_t> num_units{0};
    std::atomic<Function> function{nullptr};
    std::atomic<void*> context{nullptr};
  };
  struct Claim {
    Function function;
    void* context;
    int64_t unit;  // -1: nothing was left
  };

  void PinCaller();
  void RunUnits(int64_t num_units, Function function, void* context);
  void Publish(int64_t num_units, Function function, void* context);
  Claim ClaimFrom(uint32_t job, int owner);
  void WorkOn(uint32_t job, int worker);
  void WorkerLoop(int worker);
  bool SpinForJob(uint32_t last_job, const Range& own) const;
  void WaitForJob(uint32_t last_job, const Range& own);

  static uint32_t JobOf(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }
  int64_t BeginOf(int owner, int64_t num_units) const { return num_units * owner / num_threads(); }

  std::vector<Range> ranges_;  // by worker
  Job jobs_[2];
  uint32_t job_ = 0;                          // the last one; the caller's
  alignas(64) std::atomic<int64_t> done_{0};  // units of the last job

  alignas(64) std::atomic<bool> park_now_{false};
  std::atomic<bool> stop_{false};
  std::atomic<int> parked_{0};
  std::mutex mutex_;  // orders parking with waking; guards nothing else
  std::condition_variable wake_;
  std::vector<int> cpus_;  // by worker; empty: nobody is pinned
  pthread_t caller_ = 0;   // the last one
  std::vector<std::thread> threads_;
};

}  // namespace nibble
