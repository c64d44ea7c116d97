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

ThreadPool::ThreadPool(int num_threads)
    : ranges_(static_cast<size_t>(num_threads)), cpus_(AllowedCpus()) {
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
  WorkOn(job_, 0);
  const auto all_done = [&] { return done_.load(std::memory_order_acquire) == num_units; };
  while (!SpinUntil(all_done)) std::this_thread::yield();
}

void ThreadPool::Publish(int64_t num_units, Function function, void* context) {
  Job& job = jobs_[++job_ % 2];
  job.num_units.store(num_units, std::memory_order_release);
  job.function.store(function, std::memory_order_release);
  job.context.store(context, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  park_now_.store(false, std::memory_order_relaxed);
  // Sequentially consistent with a worker's count of itself as parked: one of the two sees the
  // other.
  for (int owner = num_threads() - 1; owner >= 0; --owner) {
    const auto begin = static_cast<uint64_t>(BeginOf(owner, num_units));
    ranges_[static_cast<size_t>(owner)].ticket.store(uint64_t{job_} << 32 | begin);
  }
  if (parked_.load() == 0) return;
  const std::lock_guard lock(mutex_);
  wake_.notify_all();
}

ThreadPool::Claim ThreadPool::ClaimFrom(uint32_t job, int owner) {
  std::atomic<uint64_t>& range = ranges_[static_cast<size_t>(owner)].ticket;
  uint64_t ticket = range.load(std::memory_order_acquire);
  while (JobOf(ticket) == job) {
    const Job& what = jobs_[job % 2];
    const int64_t num_units = what.num_units.load(std::memory_order_acquire);
    const Claim claim = {what.function.load(std::memory_order_acquire),
                         what.context.load(std::memory_order_acquire),
                         static_cast<uint32_t>(ticket)};
    if (claim.unit >= BeginOf(owner + 1, num_units)) break;
    if (range.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
      return claim;
    }
  }
  return {nullptr, nullptr, -1};
}

void ThreadPool::WorkOn(uint32_t job, int worker) {
  int64_t done = 0;
  for (int i = 0; i < num_threads(); ++i) {
    const int owner = (worker + i) % num_threads();
    for (Claim claim = ClaimFrom(job, owner); claim.unit >= 0; claim = ClaimFrom(job, owner)) {
      claim.function(claim.context, claim.unit, worker);
      ++done;
    }
  }
  if (done > 0) done_.fetch_add(done, std::memory_order_release);
}

void ThreadPool::WorkerLoop(int worker) {
  const Range& own = ranges_[static_cast<size_t>(worker)];
  uint32_t last_job = 0;
  while (true) {
    if (!SpinForJob(last_job, own)) WaitForJob(last_job, own);
    if (stop_.load()) return;
    last_job = JobOf(own.ticket.load(std::memory_order_acquire));
    WorkOn(last_job, worker);
  }
}

bool ThreadPool::SpinForJob(uint32_t last_job, const Range& own) const {
  bool found = false;
  SpinUntil([&] {
    found = JobOf(own.ticket.load(std::memory_order_acquire)) != last_job;
    return found || park_now_.load(std::memory_order_relaxed);
  });
  return found;
}

void ThreadPool::WaitForJob(uint32_t last_job, const Range& own) {
  std::unique_lock lock(mutex_);
  parked_.fetch_add(1);
  wake_.wait(lock, [&] { return stop_.load() || JobOf(own.ticket.load()) != last_job; });
  parked_.fetch_sub(1);
}

void ThreadPool::Park() { park_now_.store(true, std::memory_order_relaxed); }

}  // namespace nibble
