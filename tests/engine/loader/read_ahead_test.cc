#include "engine/loader/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "engine/loader/mapped_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::TempDir;

constexpr int64_t kPage = 4096;

// A sparse file, of which the page cache holds nothing.
class ReadAheadTest : public ::testing::Test {
 protected:
  void Open(int64_t bytes) {
    const std::string path = dir_.Write("weights", "");
    ASSERT_EQ(truncate(path.c_str(), bytes), 0);
    const int fd = open(path.c_str(), O_RDONLY);
    ASSERT_GE(fd, 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    auto file = MappedFile::Open(path);
    ASSERT_THAT(file, IsOk());
    file_ = *std::move(file);
    if (Resident(0) || Resident(bytes - kPage)) GTEST_SKIP() << "this file system is memory";
  }
  std::span<const uint8_t> bytes() const { return file_->bytes(); }
  bool Resident(int64_t at) const {
    unsigned char resident = 0;
    auto* const page = const_cast<uint8_t*>(file_->bytes().data()) + at / kPage * kPage;
    return mincore(page, 1, &resident) == 0 && (resident & 1) != 0;
  }
  bool BecomesResident(int64_t at) const {
    for (int i = 0; i < 1000 && !Resident(at); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return Resident(at);
  }

 private:
  const TempDir dir_;
  std::unique_ptr<MappedFile> file_;
};

TEST_F(ReadAheadTest, BringsWhatNobodyTouchedYet) {
  ASSERT_NO_FATAL_FAILURE(Open(int64_t{16} << 20));
  if (IsSkipped()) return;
  const ReadAhead ahead({bytes().subspan(12345, 100000), bytes().subspan(8 << 20, 4 << 20)});
  EXPECT_TRUE(BecomesResident(12345 + 99999));
  EXPECT_TRUE(BecomesResident(10 << 20));
  EXPECT_FALSE(Resident((16 << 20) - kPage));
}

TEST_F(ReadAheadTest, StaysWithinItsWindow) {
  constexpr int64_t kBytes = ReadAhead::kWindow + (int64_t{64} << 20);
  ASSERT_NO_FATAL_FAILURE(Open(kBytes));
  if (IsSkipped()) return;
  ReadAhead ahead({bytes()});
  EXPECT_TRUE(BecomesResident(ReadAhead::kWindow - kPage));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_FALSE(Resident(kBytes - kPage));
  ahead.SetUsed(int64_t{64} << 20);
  EXPECT_TRUE(BecomesResident(kBytes - kPage));
}

TEST_F(ReadAheadTest, EndsWhileItWaits) {
  ASSERT_NO_FATAL_FAILURE(Open(2 * ReadAhead::kWindow));
  if (IsSkipped()) return;
  const ReadAhead ahead({bytes()});
  EXPECT_TRUE(BecomesResident(0));
}

}  // namespace
}  // namespace nibble
