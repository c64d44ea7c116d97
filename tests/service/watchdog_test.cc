#include "service/watchdog.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace nibble {
namespace {

TEST(Watchdog, TellsOfEveryChangeOnce) {
  absl::Mutex mutex;
  absl::Duration stalled_for = absl::ZeroDuration();
  std::vector<bool> changes;
  int ticks = 0;
  const Watchdog watchdog(absl::Seconds(5), absl::Milliseconds(1),
                          {.stalled_for =
                               [&] {
                                 absl::MutexLock lock(&mutex);
                                 return stalled_for;
                               },
                           .on_change =
                               [&](bool stalled) {
                                 absl::MutexLock lock(&mutex);
                                 changes.push_back(stalled);
                               },
                           .on_tick =
                               [&](absl::Time) {
                                 absl::MutexLock lock(&mutex);
                                 ++ticks;
                               }});
  const auto set_and_wait = [&](absl::Duration value) {
    absl::MutexLock lock(&mutex);
    stalled_for = value;
    ticks = 0;
    const auto looked_twice = [&] { return ticks >= 2; };
    mutex.Await(absl::Condition(&looked_twice));
    return changes;
  };
  EXPECT_EQ(set_and_wait(absl::Seconds(5)), std::vector<bool>{}) << "at the limit is not over it";
  EXPECT_EQ(set_and_wait(absl::Seconds(6)), std::vector<bool>{true});
  EXPECT_EQ(set_and_wait(absl::Seconds(60)), std::vector<bool>{true});
  EXPECT_EQ(set_and_wait(absl::ZeroDuration()), (std::vector<bool>{true, false}));
}

TEST(Watchdog, DiesAtOnceWhateverItsPeriod) {
  const absl::Time begin = absl::Now();
  {
    const Watchdog watchdog(absl::Seconds(1), absl::Hours(1),
                            {[] { return absl::ZeroDuration(); }, [](bool) {}, [](absl::Time) {}});
  }
  EXPECT_LT(absl::Now() - begin, absl::Minutes(1));
}

}  // namespace
}  // namespace nibble
