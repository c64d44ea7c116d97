// No source leads out of --model-root, and no message tells where it is.
#include "service/model_root.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/status.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::TempDir;
using ::testing::HasSubstr;
using ::testing::Not;

class ModelRootTest : public ::testing::Test {
 protected:
  ModelRootTest() {
    std::filesystem::create_directories(dir_.File("root/a/b"));
    std::filesystem::create_directories(dir_.File("root-twin"));
    dir_.Write("root/a/m.gguf", "x");
    dir_.Write("secret", "x");
    std::filesystem::create_symlink(dir_.File("secret"), dir_.File("root/out"));
    std::filesystem::create_symlink(dir_.File("root-twin"), dir_.File("root/twin"));
    std::filesystem::create_symlink("a/m.gguf", dir_.File("root/in"));
    root_ = *ModelRoot::Open(dir_.File("root"));
    canonical_ = std::filesystem::canonical(dir_.File("root"));
  }
  TempDir dir_;
  ModelRoot root_;
  std::string canonical_;
};

TEST_F(ModelRootTest, ResolvesWhatLiesUnderIt) {
  EXPECT_EQ(*root_.Resolve("a/m.gguf"), canonical_ + "/a/m.gguf");
  EXPECT_EQ(*root_.Resolve("a"), canonical_ + "/a");
  EXPECT_EQ(*root_.Resolve("./a//b/"), canonical_ + "/a/b");
  EXPECT_EQ(*root_.Resolve("in"), canonical_ + "/a/m.gguf");
  EXPECT_EQ(*root_.Resolve("."), canonical_);
}

TEST_F(ModelRootTest, RefusesEveryWayOut) {
  for (const std::string& source :
       {std::string(""), std::string("/etc/passwd"), canonical_ + "/a", std::string("../secret"),
        std::string("a/../../secret"), std::string("a/.."), std::string(".."), std::string("out"),
        std::string("twin"), std::string("a\0b", 3), std::string(5000, 'a')}) {
    const absl::Status status = root_.Resolve(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source;
    EXPECT_EQ(FieldOf(status), "source");
  }
}

TEST_F(ModelRootTest, SaysNotFoundWithoutSayingWhere) {
  const absl::Status status = root_.Resolve("a/none.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a/none.gguf"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr(dir_.path())));
}

TEST_F(ModelRootTest, ScrubsItsOwnPathFromMessages) {
  EXPECT_EQ(root_.Scrub(canonical_ + "/a/m.gguf: bad magic"), "a/m.gguf: bad magic");
  EXPECT_EQ(root_.Scrub("cannot open " + canonical_), "cannot open --model-root");
}

TEST(ModelRoot, IsOffByDefault) {
  EXPECT_FALSE(ModelRoot().enabled());
  EXPECT_EQ(ModelRoot().Resolve("a").status().code(), absl::StatusCode::kUnimplemented);
}

TEST(ModelRoot, MustBeADirectory) {
  const TempDir dir;
  EXPECT_EQ(ModelRoot::Open(dir.File("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ModelRoot::Open(dir.Write("file", "")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
