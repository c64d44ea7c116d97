#include "engine/loader/errors.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "engine/status.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

TEST(LoaderErrors, HaveTheContractsCodeAndAReason) {
  EXPECT_THAT(CorruptFile("f", "x"), StatusIs(absl::StatusCode::kDataLoss, "f: x"));
  EXPECT_THAT(UnsupportedModel("f", "x"), StatusIs(absl::StatusCode::kUnimplemented, "f: x"));
  EXPECT_THAT(NotAModel("f", "x"), StatusIs(absl::StatusCode::kInvalidArgument, "f: x"));
  EXPECT_THAT(InconsistentModel("f", "x"), StatusIs(absl::StatusCode::kFailedPrecondition, "f: x"));
  EXPECT_EQ(ReasonOf(CorruptFile("f", "x")), "CORRUPT_MODEL_FILE");
  EXPECT_EQ(ReasonOf(UnsupportedModel("f", "x")), "UNSUPPORTED_MODEL");
  EXPECT_EQ(ReasonOf(NotAModel("f", "x")), "NOT_A_MODEL");
  EXPECT_EQ(ReasonOf(InconsistentModel("f", "x")), "INCONSISTENT_MODEL");
}

TEST(LoaderErrors, MapSystemErrors) {
  EXPECT_EQ(SystemError("f", ENOENT).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SystemError("f", ENOTDIR).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SystemError("f", ELOOP).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SystemError("f", EACCES).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(SystemError("f", EIO).code(), absl::StatusCode::kInternal);
  EXPECT_THAT(SystemError("f", EACCES),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("f: Permission denied")));
}

TEST(Quoted, EscapesAndShortensForeignText) {
  EXPECT_EQ(Quoted("lm_head.weight"), "\"lm_head.weight\"");
  EXPECT_EQ(Quoted("a\"\n\xff"), "\"a\\\"\\n\\xff\"");
  EXPECT_EQ(Quoted(std::string(100, 'x')), "\"" + std::string(80, 'x') + "…\"");
}

TEST(ShapeText, IsAListInBrackets) {
  EXPECT_EQ(ShapeText(std::vector<int64_t>{32064, 2048}), "[32064,2048]");
  EXPECT_EQ(ShapeText({}), "[]");
}

TEST(BaseName, DropsDirectories) {
  EXPECT_EQ(BaseName("/models/llama/x.gguf"), "x.gguf");
  EXPECT_EQ(BaseName("/models/llama//"), "llama");
  EXPECT_EQ(BaseName("x"), "x");
  EXPECT_EQ(BaseName("/"), "/");
  EXPECT_EQ(BaseName(""), "");
}

}  // namespace
}  // namespace nibble
