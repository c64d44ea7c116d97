#include "service/workers.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"

namespace nibble {
namespace {

TEST(Workers, RunsWhatWasQueuedBeforeItDies) {
  std::atomic<int> ran = 0;
  {
    Workers workers("test", 2, 100);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(workers.TryPost([&] { ++ran; }));
  }
  EXPECT_EQ(ran, 50);
}

TEST(Workers, OneThreadRunsTasksInOrder) {
  std::vector<int> order;
  {
    Workers workers("test", 1, 100);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(workers.TryPost([&order, i] { order.push_back(i); }));
  }
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(Workers, RefusesWhatItHasNoRoomFor) {
  absl::Notification started, release;
  Workers workers("test", 1, 2);
  ASSERT_TRUE(workers.TryPost([&] {
    started.Notify();
    release.WaitForNotification();
  }));
  started.WaitForNotification();
  EXPECT_TRUE(workers.TryPost([] {}));
  EXPECT_TRUE(workers.TryPost([] {}));
  EXPECT_FALSE(workers.TryPost([] {}));
  release.Notify();
}

TEST(Workers, ThreadsHaveNames) {
  char name[16] = {};
  {
    Workers workers("encode", 1, 1);
    ASSERT_TRUE(workers.TryPost([&] { pthread_getname_np(pthread_self(), name, sizeof(name)); }));
  }
  EXPECT_STREQ(name, "encode-0");
}

}  // namespace
}  // namespace nibble
