// Reports: what --json wrote, --compare reads.
#include "service/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::TempDir;

TEST(BenchReport, ComparesWithAnEarlierRun) {
  const TempDir directory;
  const std::string path = directory.File("report.json");
  BenchReport earlier;
  earlier.AddText("isa", "avx512");
  earlier.Add("rate", 200);
  std::ofstream(path) << earlier.ToJson();
  BenchReport now;
  now.Add("rate", 300);
  now.Add("new_rate", 1);
  ::testing::internal::CaptureStdout();
  ASSERT_TRUE(now.Print(false, path).ok());
  const std::string text = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(text, ::testing::HasSubstr("x 1.500"));
  EXPECT_THAT(text, ::testing::HasSubstr("new_rate"));
  EXPECT_EQ(now.Print(false, path + ".none").code(), absl::StatusCode::kNotFound);
  std::ofstream(path) << "not json";
  EXPECT_EQ(now.Print(false, path).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Quantile, PicksFromTheSortedValues) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({3, 1, 2}, 1), 3);
}

std::vector<absl::Time> At(const std::vector<double>& seconds) {
  std::vector<absl::Time> times;
  for (const double second : seconds) times.push_back(absl::UnixEpoch() + absl::Seconds(second));
  return times;
}

TEST(SharedRate, CountsWhatCameWhileAllAnswersRan) {
  // The second begins late and is quicker alone: neither counts.
  EXPECT_DOUBLE_EQ(SharedRate({At({0, 1, 2, 3}), At({2, 3, 3.5, 4})}), 2);
  EXPECT_DOUBLE_EQ(SharedRate({At({0, 1, 2, 3, 4})}), 1);
  // One step gives its tokens one after the other; still it is whole steps that count.
  EXPECT_DOUBLE_EQ(SharedRate({At({0.25, 1.25, 2.25}), At({0.5, 1.5, 2.5})}), 2);
}

TEST(SharedRate, AnswersThatNeverRanTogetherCountToTheLastOnesEnd) {
  EXPECT_DOUBLE_EQ(SharedRate({At({0, 1}), At({5, 6, 7})}), 1);
}

}  // namespace
}  // namespace nibble
