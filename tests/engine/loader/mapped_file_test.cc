#include "engine/loader/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "engine/status.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::testing::HasSubstr;

TEST(MappedFile, ShowsTheWholeFileUnderItsBaseName) {
  const TempDir dir;
  const auto file = MappedFile::Open(dir.Write("sub/a.bin", "hello"));
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->name(), "a.bin");
  EXPECT_EQ(std::string((*file)->bytes().begin(), (*file)->bytes().end()), "hello");
  EXPECT_THAT((*file)->CheckUnchanged(), IsOk());
}

TEST(MappedFile, OpensAnEmptyFile) {
  const TempDir dir;
  const auto file = MappedFile::Open(dir.Write("empty", ""));
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE((*file)->bytes().empty());
}

TEST(MappedFile, FollowsSymbolicLinks) {
  const TempDir dir;
  dir.Write("blob", "abc");
  std::filesystem::create_symlink("blob", dir.File("link"));
  std::filesystem::create_symlink("nowhere", dir.File("dangling"));
  std::filesystem::create_symlink("circle", dir.File("circle"));
  EXPECT_THAT(MappedFile::Open(dir.File("link")), IsOk());
  EXPECT_THAT(MappedFile::Open(dir.File("dangling")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("dangling: ")));
  EXPECT_THAT(MappedFile::Open(dir.File("circle")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("circle: ")));
}

TEST(MappedFile, RefusesWhatIsNoRegularFileWithoutWaiting) {
  const TempDir dir;
  ASSERT_EQ(mkfifo(dir.File("pipe").c_str(), 0600), 0);
  EXPECT_THAT(MappedFile::Open(dir.File("pipe")),
              StatusIs(absl::StatusCode::kInvalidArgument, "pipe: is not a regular file"));
  EXPECT_THAT(ReadTextFile(dir.File("pipe"), 10),
              StatusIs(absl::StatusCode::kInvalidArgument, "pipe: is not a regular file"));
  EXPECT_THAT(MappedFile::Open(dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not a regular file")));
  EXPECT_THAT(MappedFile::Open("/dev/null"),
              StatusIs(absl::StatusCode::kInvalidArgument, "null: is not a regular file"));
}

TEST(MappedFile, NamesAMissingFileWithoutItsDirectories) {
  const TempDir dir;
  const auto file = MappedFile::Open(dir.File("secret/x.gguf"));
  EXPECT_THAT(file, StatusIs(absl::StatusCode::kNotFound, HasSubstr("x.gguf: ")));
  EXPECT_EQ(std::string(file.status().message()).find("secret"), std::string::npos);
  EXPECT_EQ(ReasonOf(file.status()), "MODEL_NOT_FOUND");
}

TEST(MappedFile, SaysThatItMayNotBeRead) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TempDir dir;
  const std::string path = dir.Write("private", "x");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  EXPECT_THAT(MappedFile::Open(path),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("private: ")));
}

TEST(MappedFile, NoticesThatTheFileChanged) {
  const TempDir dir;
  const std::string path = dir.Write("a", "hello");
  const auto file = MappedFile::Open(path);
  ASSERT_THAT(file, IsOk());
  std::filesystem::resize_file(path, 3);
  EXPECT_THAT((*file)->CheckUnchanged(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("it had 5 bytes and has 3")));
}

TEST(MappedFile, KeepsTheFileThatWasReplacedByRenaming) {
  const TempDir dir;
  const std::string path = dir.Write("a", "old");
  const auto file = MappedFile::Open(path);
  ASSERT_THAT(file, IsOk());
  std::filesystem::rename(dir.Write("b", "newer"), path);
  EXPECT_THAT((*file)->CheckUnchanged(), IsOk());
  EXPECT_EQ((*file)->bytes()[0], 'o');
}

TEST(ReadTextFile, ReadsUpToItsLimit) {
  const TempDir dir;
  const std::string path = dir.Write("t.json", "12345");
  const auto text = ReadTextFile(path, 5);
  ASSERT_THAT(text, IsOk());
  EXPECT_EQ(*text, "12345");
  EXPECT_THAT(ReadTextFile(path, 4),
              StatusIs(absl::StatusCode::kDataLoss, "t.json: has 5 bytes, wanted at most 4"));
  EXPECT_THAT(ReadTextFile(dir.File("none"), 4),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
}

}  // namespace
}  // namespace nibble
