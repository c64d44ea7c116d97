// Addresses, and ports in use.
#include "service/listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/status.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(Listen, PicksAPortForZero) {
  const absl::StatusOr<Listener> listener = Listen("--listen", "127.0.0.1:0");
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_GT(listener->port, 0);
  EXPECT_EQ(listener->address, absl::StrCat("127.0.0.1:", listener->port));
  EXPECT_TRUE(listener->loopback);
}

TEST(Listen, KnowsWhatIsLoopback) {
  EXPECT_TRUE(Listen("--listen", "localhost:0")->loopback);
  EXPECT_TRUE(Listen("--listen", "127.8.9.1:0")->loopback);
  EXPECT_FALSE(Listen("--listen", "0.0.0.0:0")->loopback);
  const absl::StatusOr<Listener> v6 = Listen("--listen", "[::1]:0");
  if (!v6.ok()) GTEST_SKIP() << "no IPv6 here: " << v6.status();
  EXPECT_TRUE(v6->loopback);
  EXPECT_FALSE(Listen("--listen", "[::]:0")->loopback);
}

TEST(Listen, SaysThatAPortIsInUse) {
  const absl::StatusOr<Listener> first = Listen("--listen", "127.0.0.1:0");
  ASSERT_TRUE(first.ok());
  const absl::Status status = Listen("--listen", first->address).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), "PORT_IN_USE");
  EXPECT_THAT(std::string(status.message()), HasSubstr(first->address));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--listen"));
}

TEST(Listen, RefusesWhatIsNoAddress) {
  for (const char* address :
       {"", "127.0.0.1", "127.0.0.1:", ":0", "127.0.0.1:65536", "127.0.0.1:-1", "example.org:80",
        "::1:80", "[::1]", "[::1:80", "256.0.0.1:1"}) {
    EXPECT_EQ(Listen("--listen", address).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(Listen, RefusesAnAddressOfAnotherMachine) {
  EXPECT_EQ(Listen("--listen", "192.0.2.1:0").status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace nibble
