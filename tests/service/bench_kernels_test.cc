// `nibble bench kernels` as people run it. Its figures are the machine's own business; here only
// that all of them are there.
#include <gmock/gmock.h>
#include <simdjson.h>

#include <cmath>
#include <set>
#include <string>

#include "service/bench_samples.h"
#include "tests/support/process.h"
#include "tests/support/running_server.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Nibble;
using ::testing::Not;
using testing::Outcome;

TEST(BenchSamples, SidesTakeTurnsAndRestAfterEach) {
  std::string order;
  Pace pace = {.samples = 2, .sample_seconds = 0, .limit_seconds = 100};
  const auto rates = MeasureInTurn({{[&] { order += 'a'; }, [&] { order += '-'; }},
                                    {[&] { order += 'b'; }, [&] { order += '.'; }}},
                                   pace);
  // One call before each measured one: to calibrate (then once more), and to wake threads.
  EXPECT_EQ(order, "aa-bb.aa-bb.aa-bb.");
  ASSERT_EQ(rates.size(), 2u);
  EXPECT_EQ(rates[0].size(), 2u);
  EXPECT_EQ(rates[1].size(), 2u);
}

TEST(BenchSamples, TheLimitEndsAMeasurementButLeavesTheLeast) {
  const Pace pace = {.samples = 1000, .sample_seconds = 0, .limit_seconds = 0};
  const auto rates = MeasureInTurn({{[] {}, {}}}, pace);
  EXPECT_EQ(rates[0].size(), static_cast<size_t>(kMinSamples));
}

TEST(BenchSamples, AFigureIsTheMedianOfThePairsWithItsRange) {
  const std::vector<double> ratios = Ratios({10, 30, 20}, {10, 10, 10}, 2);
  EXPECT_THAT(ratios, ElementsAre(2, 6, 4));
  const Spread spread = SpreadOf(ratios);
  EXPECT_EQ(spread.median, 4);
  EXPECT_EQ(spread.min, 2);
  EXPECT_EQ(spread.max, 6);
  EXPECT_EQ(spread.samples, 3);
  EXPECT_EQ(Scaled(spread, 0.5).max, 3);
}

TEST(BenchKernels, QuickRunTellsEveryGoalAndProduct) {
  const Outcome outcome = Nibble({"bench", "kernels", "--quick", "--threads", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  for (const char* id : {"C1 ", "C2 ", "C3 ", "C4 ", "C5 ", "C6 ", "C7, C7b ", "C8 ", "C9 ", "C10 ",
                         "DQ ", "read, 1 thread", "isa ", "skipped ", "clock "}) {
    EXPECT_THAT(outcome.output, HasSubstr(absl::StrCat("\n", id))) << outcome.output;
  }
  for (const char* product : {"\nnf4+dq ", "\nnf4 ", "\nfp4+dq ", "\nbf16 ", "\nfp16 ", "\nint8 ",
                              "across rows", "own tables", "6 outliers", "quantize"}) {
    EXPECT_THAT(outcome.output, HasSubstr(product)) << outcome.output;
  }
  EXPECT_THAT(outcome.output, Not(HasSubstr("nan")));
}

TEST(BenchKernels, JsonTellsTheSame) {
  const Outcome outcome = Nibble({"bench", "kernels", "--quick", "--threads", "1", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  ASSERT_EQ(parser.parse(outcome.output).get(root), simdjson::SUCCESS) << outcome.output;
  std::set<std::string_view> ids;
  for (const simdjson::dom::element goal : root["goals"].get_array()) {
    const std::string_view id = goal["id"], verdict = goal["verdict"];
    ids.insert(id);
    double figure = 0;
    const bool measured = goal["figure"].get(figure) == simdjson::SUCCESS;
    EXPECT_EQ(measured, verdict != "not run") << id;
    EXPECT_TRUE(!measured || (std::isfinite(figure) && figure > 0)) << id << " " << figure;
  }
  EXPECT_THAT(ids,
              ElementsAre("C1", "C10", "C2", "C3", "C4", "C5", "C6", "C7, C7b", "C8", "C9", "DQ"));
  EXPECT_GT(root["peaks"].get_array().size(), 0u);
  for (const simdjson::dom::element product : root["products"].get_array()) {
    const double seconds = product["seconds"];
    EXPECT_GT(seconds, 0) << product["name"];
  }
}

TEST(BenchKernels, OneMatrixOnOneRowInOneMode) {
  const Outcome outcome =
      Nibble({"bench", "kernels", "--quick", "--threads", "1", "--cpu-isa", "scalar", "--compute",
              "fp32", "--shape", "64x128", "--rows", "1,3", "--only", "nf4+dq"});
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("\nnf4+dq 64x128, fp32, M=1 "),
                                    HasSubstr("\nnf4+dq 64x128, fp32, M=3 "),
                                    Not(HasSubstr("\nnf4 64x128")), Not(HasSubstr("\nC1"))));
}

TEST(BenchKernels, HelpIsNoErrorAndWrongUsageIsTwo) {
  const Outcome help = Nibble({"bench", "kernels", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("--quick"), HasSubstr("--only"), HasSubstr("--json")));
  for (const std::vector<std::string>& wrong :
       std::vector<std::vector<std::string>>{{"--quik"},
                                             {"--compute", "fp64"},
                                             {"--shape", "64"},
                                             {"--shape", "64x0"},
                                             {"--rows", "1,x", "--shape", "64x64"}}) {
    std::vector<std::string> command = {"bench", "kernels"};
    command.insert(command.end(), wrong.begin(), wrong.end());
    const Outcome outcome = Nibble(command);
    EXPECT_EQ(outcome.code, 2) << outcome.output;
    EXPECT_THAT(outcome.output, AllOf(HasSubstr("--help"), HasSubstr(wrong[0]))) << wrong[0];
  }
  EXPECT_EQ(Nibble({"bench", "kernels", "--cpu-isa", "vax"}).code, 1);
}

}  // namespace
}  // namespace nibble
