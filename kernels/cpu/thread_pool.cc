// The pool's loop: claim units, spin, park.
#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>
#include <sched.h>
#include <unistd.h>

#include "kernels/cpu/cpu_set.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

// Looks at `ready` until it holds or kSpin has passed; the clock is read once in a while.
template <typename Ready>
bool SpinUntil(Ready ready) {
  const Clock::time_point end = Clock::now() + ThreadPool::kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      _mm_pause();
    }
  } while (Clock::now() < end);
  return false;
}

// A thread that cannot be pinned still computes the right thing.
void Pin(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)pthread_setaffinity_np(thread, sizeof(set), &set);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) : cpus_(AllowedCpus()) {
  if (num_threads > static_cast<int>(cpus_.size())) cpus_.clear();
  for (int worker = 1; worker < num_threads; ++worker) {
    threads_.emplace_back([this, worker] { WorkerLoop(worker); });
    if (!cpus_.empty()) {
      Pin(threads_.back().native_handle(), cpus_[static_cast<size_t>(worker)]);
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::PinCaller() {
  caller_ = pthread_self();
  if (!cpus_.empty() && gettid() != getpid()) Pin(caller_, cpus_[0]);
}

void ThreadPool::RunUnits(int64_t num_units, Function function, void* context) {
  if (threads_.empty() || num_units <= 1) {
    for (int64_t unit = 0; unit < num_units; ++unit) function(context, unit, 0);
    return;
  }
  if (!pthread_equal(caller_, pthread_self())) PinCaller();
  Publish(num_units, function, context);
  WorkOn(JobOf(ticket_.load(std::memory_order_relaxed)), 0);
  const auto all_done = [&] { return done_.load(std::memory_order_acquire) == num_units; };
  while (!SpinUntil(all_done)) std::this_thread::yield();
}

void ThreadPool::Publish(int64_t num_units, Function function, void* context) {
  const uint32_t last_job = JobOf(ticket_.load(std::memory_order_relaxed));
  // A worker that is late for the last job may be about to claim from it: closed, there is nothing
  // to claim while the fields change. Release and acquire of the fields make sure that whoever
  // reads a new one also sees the closing, and so fails to claim.
  ticket_.store(uint64_t{last_job} << 32 | kClosed, std::memory_order_relaxed);
  done_.store(0, std::memory_order_release);
  num_units_.store(num_units, std::memory_order_release);
  function_.store(function, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  park_now_.store(false, std::memory_order_relaxed);
  // Sequentially consistent with a worker's count of itself as parked: one of the two sees the
  // other.
  ticket_.store(uint64_t{last_job + 1} << 32);
  if (parked_.load() == 0) return;
  const std::lock_guard lock(mutex_);
  wake_.notify_all();
}

void ThreadPool::WorkOn(uint32_t job, int worker) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (JobOf(ticket) == job) {
    const int64_t num_units = num_units_.load(std::memory_order_acquire);
    const Function function = function_.load(std::memory_order_acquire);
    void* const context = context_.load(std::memory_order_acquire);
    const int64_t unit = static_cast<uint32_t>(ticket);
    if (unit >= num_units) return;
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    function(context, unit, worker);
    done_.fetch_add(1, std::memory_order_release);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop(int worker) {
  uint32_t last_job = 0;
  while (true) {
    if (!SpinForJob(last_job)) WaitForJob(last_job);
    if (stop_.load()) return;
    last_job = JobOf(ticket_.load(std::memory_order_acquire));
    WorkOn(last_job, worker);
  }
}

bool ThreadPool::SpinForJob(uint32_t last_job) const {
  bool found = false;
  SpinUntil([&] {
    found = JobOf(ticket_.load(std::memory_order_acquire)) != last_job;
    return found || park_now_.load(std::memory_order_relaxed);
  });
  return found;
}

void ThreadPool::WaitForJob(uint32_t last_job) {
  std::unique_lock lock(mutex_);
  parked_.fetch_add(1);
  wake_.wait(lock, [&] { return stop_.load() || JobOf(ticket_.load()) != last_job; });
  parked_.fetch_sub(1);
}

void ThreadPool::Park() { park_now_.store(true, std::memory_order_relaxed); }

}  // namespace nibble
