// The queue's bounds and its advice.
#include "engine/scheduler/admission.h"

#include <gtest/gtest.h>

#include "engine/status.h"

namespace nibble {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1000);

TEST(Admission, IsBoundedByRequests) {
  Admission admission({.max_requests = 2, .max_tokens = 1000});
  EXPECT_TRUE(admission.TryEnter(1, kNow).ok());
  EXPECT_TRUE(admission.CheckRoom(kNow).ok());
  EXPECT_TRUE(admission.TryEnter(1, kNow).ok());
  EXPECT_EQ(admission.CheckRoom(kNow).code(), absl::StatusCode::kResourceExhausted);
  const absl::Status full = admission.TryEnter(1, kNow);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), "QUEUE_FULL");
  EXPECT_TRUE(RetryAfterOf(full).has_value());
  EXPECT_EQ(admission.waiting_requests(), 2);
}

TEST(Admission, IsBoundedByTokens) {
  Admission admission({.max_requests = 100, .max_tokens = 50});
  EXPECT_TRUE(admission.TryEnter(30, kNow).ok());
  EXPECT_EQ(admission.TryEnter(21, kNow).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(admission.TryEnter(20, kNow).ok());
  EXPECT_EQ(admission.waiting_tokens(), 50);
}

TEST(Admission, TakesAnyOneRequestWhenNothingWaits) {
  Admission admission({.max_requests = 1, .max_tokens = 10});
  EXPECT_TRUE(admission.TryEnter(1'000'000, kNow).ok());
  EXPECT_EQ(admission.TryEnter(1, kNow).code(), absl::StatusCode::kResourceExhausted);
}

TEST(Admission, HasRoomAgainWhenOneStartsOrWithdraws) {
  Admission admission({.max_requests = 1, .max_tokens = 10});
  ASSERT_TRUE(admission.TryEnter(5, kNow).ok());
  admission.Start(5, kNow);
  ASSERT_TRUE(admission.TryEnter(6, kNow).ok());
  admission.Withdraw(6);
  EXPECT_EQ(admission.waiting_requests(), 0);
  EXPECT_EQ(admission.waiting_tokens(), 0);
}

TEST(Admission, AdvisesASecondWhileItKnowsNoRate) {
  Admission admission({.max_requests = 1, .max_tokens = 10});
  ASSERT_TRUE(admission.TryEnter(5, kNow).ok());
  EXPECT_EQ(RetryAfterOf(admission.TryEnter(1, kNow)), absl::Seconds(1));
}

TEST(Admission, AdvisesTheTimeInWhichTheQueueEmpties) {
  Admission admission({.max_requests = 40, .max_tokens = 1 << 20});
  // Ten a second for a minute: the rate has settled.
  absl::Time now = kNow;
  for (int i = 0; i < 600; ++i) {
    ASSERT_TRUE(admission.TryEnter(100, now).ok());
    admission.Start(100, now);
    now += absl::Milliseconds(100);
  }
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(admission.TryEnter(100, now).ok());
  const auto advice = RetryAfterOf(admission.TryEnter(100, now));
  ASSERT_TRUE(advice.has_value());
  EXPECT_NEAR(absl::ToDoubleSeconds(*advice), 4.0, 0.2);
}

TEST(Admission, KeepsItsAdviceBetweenATenthOfASecondAndAMinute) {
  Admission fast({.max_requests = 1, .max_tokens = 10});
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(fast.TryEnter(1, kNow).ok());
    fast.Start(1, kNow);
  }
  ASSERT_TRUE(fast.TryEnter(1, kNow).ok());
  EXPECT_EQ(RetryAfterOf(fast.TryEnter(1, kNow)), absl::Milliseconds(100));

  Admission slow({.max_requests = 1, .max_tokens = 10});
  ASSERT_TRUE(slow.TryEnter(1, kNow).ok());
  slow.Start(1, kNow);
  ASSERT_TRUE(slow.TryEnter(1, kNow).ok());
  EXPECT_EQ(RetryAfterOf(slow.TryEnter(1, kNow + absl::Hours(1))), absl::Minutes(1));
}

TEST(AdmissionDeathTest, LetsNobodyLeaveWhoWasNotIn) {
  Admission admission({.max_requests = 1, .max_tokens = 10});
  EXPECT_DEATH(admission.Withdraw(1), "who leaves a queue was in it");
}

}  // namespace
}  // namespace nibble
