// Errors carry a reason, a field and retry advice that survive the Status.
#include "engine/status.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Status, CarriesCodeMessageReasonAndField) {
  const absl::Status status = Error(absl::StatusCode::kInvalidArgument, "BAD_TEMPERATURE",
                                    "temperature is -1, wanted >= 0", "sampling.temperature");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "temperature is -1, wanted >= 0");
  EXPECT_EQ(ReasonOf(status), "BAD_TEMPERATURE");
  EXPECT_EQ(FieldOf(status), "sampling.temperature");
  EXPECT_EQ(RetryAfterOf(status), std::nullopt);
}

TEST(Status, AnswersEmptyForWhatIsAbsent) {
  const absl::Status plain = absl::InternalError("device lost");
  EXPECT_EQ(ReasonOf(plain), "");
  EXPECT_EQ(FieldOf(plain), "");
  EXPECT_EQ(RetryAfterOf(plain), std::nullopt);
  EXPECT_EQ(FieldOf(Error(absl::StatusCode::kNotFound, "UNKNOWN_MODEL", "no model")), "");
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
}

TEST(Status, KeepsRetryAdviceToTheNanosecond) {
  const absl::Duration after = absl::Milliseconds(1500) + absl::Nanoseconds(7);
  const absl::Status status = RetryLater("QUEUE_FULL", "1024 requests wait", after);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(RetryAfterOf(status), after);
  EXPECT_EQ(RetryAfterOf(RetryLater("QUEUE_FULL", "", absl::ZeroDuration())), absl::ZeroDuration());
}

TEST(Status, KeepsBytesThatAreNotText) {
  const std::string reason("A\0B\xff", 4);
  EXPECT_EQ(ReasonOf(Error(absl::StatusCode::kInternal, reason, "x")), reason);
}

}  // namespace
}  // namespace nibble
