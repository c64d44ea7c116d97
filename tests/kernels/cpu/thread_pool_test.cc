// The pool: every unit once, whoever runs it; parking and waking; bodies that are slow or late.
#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_set.h"

namespace nibble {
namespace {

// Yields until the workers have parked themselves: what ends the wait is the pool's own clock.
void AwaitParked(const ThreadPool& pool) {
  while (pool.num_parked() != pool.num_threads() - 1) std::this_thread::yield();
}

TEST(ThreadPool, RunsEveryUnitExactlyOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const int64_t units : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> counts(static_cast<size_t>(units));
      pool.Run(units, [&](int64_t unit, int worker) {
        ASSERT_GE(worker, 0);
        ASSERT_LT(worker, threads);
        ++counts[static_cast<size_t>(unit)];
      });
      for (const std::atomic<int>& count : counts) EXPECT_EQ(count.load(), 1);
    }
  }
}

// Small jobs of changing size, back to back: a worker that comes late for one must not claim a unit
// from it while the next one is being written (which hung, or ran a unit twice).
TEST(ThreadPool, ALateWorkerNeverClaimsFromAJobThatEnded) {
  ThreadPool pool(2);
  std::vector<std::atomic<int>> runs(64);
  for (int job = 0; job < 300000; ++job) {
    const int num_units = 2 + job * 7 % 40;
    pool.Run(num_units, [&](int64_t unit, int) { ++runs[static_cast<size_t>(unit)]; });
    for (int unit = 0; unit < num_units; ++unit) {
      ASSERT_EQ(runs[static_cast<size_t>(unit)].exchange(0), 1)
          << "job " << job << " unit " << unit;
    }
  }
}

TEST(ThreadPool, WhatUnitsWriteIsSeenByTheCallerAndByTheNextJob) {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.Run(64, [&](int64_t unit, int) {
      // Another unit's value of the last round: plain memory, ordered only by the pool.
      const auto next = static_cast<size_t>((unit + 1) % 64);
      if (round % 2 == 0) {
        values[static_cast<size_t>(unit)] += 1;
      } else {
        ASSERT_EQ(values[next], round / 2 + 1);
      }
    });
    ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), (round / 2 + 1) * 64);
  }
}

TEST(ThreadPool, ParksWhenIdleAndWakesForTheNextJob) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    AwaitParked(pool);
    // Each unit waits until another thread runs one too: only woken workers can finish this.
    std::mutex mutex;
    std::condition_variable arrived;
    int inside = 0;
    pool.Run(3, [&](int64_t, int) {
      std::unique_lock lock(mutex);
      ++inside;
      arrived.notify_all();
      arrived.wait(lock, [&] { return inside == 3; });
    });
    EXPECT_EQ(inside, 3);
  }
}

TEST(ThreadPool, ParkSendsWorkersToSleepAtOnceAndWorkWakesThem) {
  ThreadPool pool(2);
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> sum = 0;
    pool.Run(8, [&](int64_t unit, int) { sum += static_cast<int>(unit); });
    EXPECT_EQ(sum.load(), 28);
    pool.Park();
    if (round % 20 == 0) AwaitParked(pool);
  }
}

TEST(ThreadPool, AParkedPoolUsesNoCpuTime) {
  ThreadPool pool(4);
  pool.Run(4, [](int64_t, int) {});
  AwaitParked(pool);
  const auto cpu_us = [] {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec;
  };
  // This thread blocks too, on a condition that nobody will signal, for a tenth of a second.
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  const auto before = cpu_us();
  never.wait_for(lock, std::chrono::milliseconds(100), [] { return false; });
  EXPECT_LT(cpu_us() - before, 20000);
}

TEST(ThreadPool, EndsWhileWorkersSpinAndWhileTheyAreParked) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(3);
    pool.Run(3, [](int64_t, int) {});
    if (round % 2 == 0) AwaitParked(pool);
  }
}

TEST(CpuSet, SomeCpuIsAllowedAndThreadsDefaultToNoMore) {
  EXPECT_FALSE(AllowedCpus().empty());
  EXPECT_GE(DefaultThreads(), 1);
  EXPECT_LE(DefaultThreads(), static_cast<int>(AllowedCpus().size()));
}

}  // namespace
}  // namespace nibble
