// Tokens, roles, and the file they come from.
#include "service/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/status.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::TempDir;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFile[] =
    "# tokens\n"
    "\n"
    "plain-token-0123456789\n"
    "admin-token-0123456789 admin\r\n"
    "  observe-token-01234567   observe\n";

Authorizer Parsed() {
  absl::StatusOr<Authorizer> authorizer = Authorizer::Parse(kFile);
  EXPECT_TRUE(authorizer.ok()) << authorizer.status();
  return *authorizer;
}

TEST(Authorizer, WithoutTokensEveryoneMayDoEverything) {
  EXPECT_TRUE(Authorizer().Check("", Role::kAdmin).ok());
}

TEST(Authorizer, ARoleServesForWhatItNamesAndLess) {
  const Authorizer authorizer = Parsed();
  struct Case {
    const char* header;
    Role needed;
    absl::StatusCode code;
  };
  const Case cases[] = {
      {"Bearer plain-token-0123456789", Role::kInference, absl::StatusCode::kOk},
      {"Bearer plain-token-0123456789", Role::kObserve, absl::StatusCode::kOk},
      {"Bearer plain-token-0123456789", Role::kAdmin, absl::StatusCode::kPermissionDenied},
      {"bearer admin-token-0123456789", Role::kAdmin, absl::StatusCode::kOk},
      {"Bearer admin-token-0123456789", Role::kInference, absl::StatusCode::kOk},
      {"Bearer observe-token-01234567", Role::kObserve, absl::StatusCode::kOk},
      {"Bearer observe-token-01234567", Role::kInference, absl::StatusCode::kPermissionDenied},
  };
  for (const Case& c : cases)
    EXPECT_EQ(authorizer.Check(c.header, c.needed).code(), c.code) << c.header;
}

TEST(Authorizer, RefusesWhatIsNoKnownToken) {
  const Authorizer authorizer = Parsed();
  for (const char* header :
       {"", "Bearer", "Bearer ", "Basic plain-token-0123456789", "plain-token-0123456789",
        "Bearer plain-token-012345678", "Bearer plain-token-01234567890",
        "Bearer  plain-token-0123456789", "Bearer # tokens"}) {
    const absl::Status status = authorizer.Check(header, Role::kObserve);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << header;
    EXPECT_FALSE(ReasonOf(status).empty());
  }
}

TEST(Authorizer, NamesTheBadLineAndNeverTheToken) {
  struct Case {
    const char* text;
    const char* said;
  };
  const Case cases[] = {{"plain-token-0123456789\nshort secret\n", "line 2"},
                        {"secret-token-0123456789 root\n", "role \"root\""},
                        {"secret-token-0123456789 admin extra\n", "line 1"},
                        {"# only a comment\n", "no token"},
                        {"", "no token"}};
  for (const Case& c : cases) {
    const absl::Status status = Authorizer::Parse(c.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.said));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("secret")));
  }
}

TEST(Authorizer, ReadsAFile) {
  const TempDir dir;
  EXPECT_TRUE(Authorizer::FromFile(dir.Write("tokens", kFile)).ok());
  EXPECT_EQ(Authorizer::FromFile(dir.File("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Authorizer::FromFile(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
