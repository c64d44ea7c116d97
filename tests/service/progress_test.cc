// Progress: silent when quick, a bar on a terminal, lines when piped.
#include "service/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace nibble {
namespace {

std::string Draw(bool is_terminal, const std::vector<std::pair<double, int64_t>>& updates) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    Progress progress("loading m", out, is_terminal);
    for (const auto& [second, done] : updates) {
      progress.Update(done, 100'000'000, absl::UnixEpoch() + absl::Seconds(second));
    }
  }
  std::fclose(out);
  std::string result(text, size);
  free(text);
  return result;
}

TEST(Progress, SaysNothingWithinASecond) {
  EXPECT_EQ(Draw(true, {{0, 0}, {0.5, 50'000'000}, {0.9, 100'000'000}}), "");
}

TEST(Progress, DrawsABarOnATerminalAndEndsItsLine) {
  const std::string text = Draw(true, {{0, 0}, {2, 50'000'000}});
  EXPECT_THAT(
      text, testing::HasSubstr(
                "loading m [##############..............]  50 %  50.0 MB of 100.0 MB, 25.0 MB/s"));
  EXPECT_EQ(text.back(), '\n');
}

TEST(Progress, WritesALineEveryTwoSecondsWhenPiped) {
  const std::string text =
      Draw(false, {{0, 0}, {1.5, 10'000'000}, {2, 20'000'000}, {4, 40'000'000}});
  EXPECT_EQ(text,
            "loading m:  10 %  10.0 MB of 100.0 MB, 6.7 MB/s\nloading m:  40 %  40.0 MB of 100.0 "
            "MB, 10.0 MB/s\n");
}

}  // namespace
}  // namespace nibble
