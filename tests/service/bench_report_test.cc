// Reports: what --json wrote, --compare reads.
#include "service/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace nibble {
namespace {

TEST(BenchReport, ComparesWithAnEarlierRun) {
  const std::string path = testing::TempDir() + "/nibble_bench_report_test.json";
  BenchReport earlier;
  earlier.AddText("isa", "avx512");
  earlier.Add("rate", 200);
  std::ofstream(path) << earlier.ToJson();
  BenchReport now;
  now.Add("rate", 300);
  now.Add("new_rate", 1);
  testing::internal::CaptureStdout();
  ASSERT_TRUE(now.Print(false, path).ok());
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_THAT(text, testing::HasSubstr("x 1.500"));
  EXPECT_THAT(text, testing::HasSubstr("new_rate"));
  EXPECT_EQ(now.Print(false, path + ".none").code(), absl::StatusCode::kNotFound);
  std::ofstream(path) << "not json";
  EXPECT_EQ(now.Print(false, path).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Quantile, PicksFromTheSortedValues) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({3, 1, 2}, 1), 3);
}

}  // namespace
}  // namespace nibble
