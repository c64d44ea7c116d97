// What a client sees of an error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "service/convert.h"
#include "service/observer.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

google::rpc::Status DetailsOf(const WireStatus& wire) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(wire.status.error_details()));
  return details;
}

TEST(ToWire, OkIsBare) {
  const WireStatus wire = ToWire(absl::OkStatus(), "id");
  EXPECT_TRUE(wire.status.ok());
  EXPECT_TRUE(wire.status.error_details().empty());
  EXPECT_TRUE(wire.trailers.empty());
  EXPECT_EQ(wire.reason, "");
}

TEST(ToWire, EveryCodeKeepsItsNumberAndName) {
  for (int code = 1; code <= 16; ++code) {
    const auto absl_code = static_cast<absl::StatusCode>(code);
    const WireStatus wire = ToWire(absl::Status(absl_code, "text"), "id");
    EXPECT_EQ(static_cast<int>(wire.status.error_code()), code);
    EXPECT_EQ(DetailsOf(wire).code(), code);
    EXPECT_EQ(CodeName(absl_code), absl::StatusCodeToString(absl_code));
    EXPECT_EQ(wire.reason, CodeName(absl_code));
  }
}

TEST(ToWire, CarriesReasonFieldAndRequestId) {
  const WireStatus wire = ToWire(
      Error(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE", "top_p: 7", "sampling.top_p"),
      "id-1");
  EXPECT_EQ(wire.status.error_message(), "top_p: 7");
  EXPECT_EQ(wire.reason, "OUT_OF_RANGE");
  const google::rpc::Status details = DetailsOf(wire);
  EXPECT_EQ(details.message(), "top_p: 7");
  ASSERT_EQ(details.details_size(), 2);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  EXPECT_EQ(info.reason(), "OUT_OF_RANGE");
  EXPECT_EQ(info.domain(), "nibble");
  EXPECT_EQ(info.metadata().at("request_id"), "id-1");
  google::rpc::BadRequest bad;
  ASSERT_TRUE(details.details(1).UnpackTo(&bad));
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(bad.field_violations(0).description(), "top_p: 7");
}

TEST(ToWire, CarriesRetryAdviceTwice) {
  const WireStatus wire = ToWire(RetryLater("QUEUE_FULL", "full", absl::Milliseconds(1500)), "id");
  EXPECT_EQ(wire.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(wire.trailers, ElementsAre(Pair("grpc-retry-pushback-ms", "1500")));
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(DetailsOf(wire).details(1).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
}

TEST(ToWire, CutsLongMessagesBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "é";
  const std::string message = ToWire(absl::InternalError(text), "id").status.error_message();
  EXPECT_LE(message.size(), 1024u);
  EXPECT_GT(message.size(), 1000u);
  EXPECT_EQ(message.substr(message.size() - 5), "é…");
}

TEST(ToWire, ReplacesWhatIsNoUtf8) {
  const auto shown = [](const std::string& text) {
    return ToWire(absl::InternalError(text), "id").status.error_message();
  };
  EXPECT_EQ(shown("a\xFF"
                  "b\xC3"),
            "a?b?");
  EXPECT_EQ(shown("\xC0\x80"), "??") << "overlong";
  EXPECT_EQ(shown("\xED\xA0\x80"), "???") << "a surrogate";
  EXPECT_EQ(shown("\xF4\x90\x80\x80"), "????") << "past U+10FFFF";
  EXPECT_EQ(shown("\xF4\x8F\xBF\xBF é €"), "\xF4\x8F\xBF\xBF é €");
}

}  // namespace
}  // namespace nibble
