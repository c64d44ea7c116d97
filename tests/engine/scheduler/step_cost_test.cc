// Predictions are learned, and wrong only towards caution.
#include "engine/scheduler/step_cost.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(StepCost, BeginsWithAFixedStepWhileNothingIsKnown) {
  const StepCost cost;
  EXPECT_EQ(cost.Predict(100), 0);
  EXPECT_EQ(cost.RowsWithin(0.05, 512), StepCost::kFirstRows);
  EXPECT_EQ(cost.RowsWithin(0.05, 5), 5);
}

TEST(StepCost, PredictsWhatItSaw) {
  StepCost cost;
  cost.Observe(64, 0.032);
  EXPECT_DOUBLE_EQ(cost.Predict(64), 0.032);
  EXPECT_DOUBLE_EQ(cost.Predict(48), 0.024);
}

TEST(StepCost, JudgesLargerStepsInProportionAndSmallerOnesByTheWholeStep) {
  StepCost cost;
  cost.Observe(64, 0.032);
  EXPECT_DOUBLE_EQ(cost.Predict(512), 0.256);
  // Never cheaper than the truth can be: one row is judged at most like all 64.
  EXPECT_LE(cost.Predict(1), 0.032);
  EXPECT_GE(cost.Predict(1), 0.032 / 64);
}

TEST(StepCost, FillsTheBudgetAndNoMore) {
  StepCost cost;
  cost.Observe(1, 0.005);
  EXPECT_EQ(cost.RowsWithin(0.05, 512), 10);
  cost.Observe(10, 0.006);
  EXPECT_EQ(cost.RowsWithin(0.05, 512), 83);
  for (const int64_t rows : {1, 7, 16, 83, 200, 512}) {
    cost.Observe(rows, 0.001 + 0.0001 * static_cast<double>(rows));
  }
  const int64_t rows = cost.RowsWithin(0.05, 512);
  EXPECT_LE(cost.Predict(rows), 0.05);
  EXPECT_GT(rows, 400);
}

TEST(StepCost, AlwaysAllowsOneRow) {
  StepCost cost;
  cost.Observe(4, 3.0);
  EXPECT_EQ(cost.RowsWithin(0.05, 512), 1);
  EXPECT_EQ(cost.RowsWithin(0.05, 1), 1);
}

// A large model on a slow machine: reading its weights takes 3 s, a row's arithmetic 0.1 s.
TEST(StepCost, FormsBatchesWhereOneRowTakesLongerThanTheBudget) {
  StepCost cost;
  double longest = 0;
  for (int i = 0; i < 60; ++i) {
    const int64_t rows = cost.RowsWithin(0.05, 512);
    const double seconds = std::max(3.0, 0.1 * static_cast<double>(rows));
    cost.Observe(rows, seconds);
    if (i > 0) longest = std::max(longest, seconds);
  }
  EXPECT_GE(cost.RowsWithin(0.05, 512), 32);
  EXPECT_LE(longest, 2 * 3.0 + 0.01);
}

TEST(StepCost, FollowsAChangeOfSpeedButNotOneOutlier) {
  StepCost cost;
  for (int i = 0; i < 50; ++i) cost.Observe(32, 0.01);
  cost.Observe(32, 0.1);
  EXPECT_LT(cost.Predict(32), 0.03);
  for (int i = 0; i < 50; ++i) cost.Observe(32, 0.1);
  EXPECT_NEAR(cost.Predict(32), 0.1, 0.001);
}

TEST(StepCost, TriesALargeStepAgainThatWasOnceSlow) {
  StepCost cost;
  cost.Observe(512, 3.0);  // a cold start
  cost.Observe(8, 0.001);
  EXPECT_LT(cost.RowsWithin(0.05, 512), 512);
  for (int i = 0; i < 60; ++i) {
    const int64_t rows = cost.RowsWithin(0.05, 512);
    cost.Observe(rows, 0.0005 + 0.00005 * static_cast<double>(rows));
  }
  EXPECT_EQ(cost.RowsWithin(0.05, 512), 512);
}

TEST(StepCost, StaysWithinTheBudgetWhenTheMachineSlowsDown) {
  StepCost cost;
  const auto run = [&](int64_t rows, double slowness) {
    const double seconds = slowness * (0.0005 + 0.0001 * static_cast<double>(rows));
    cost.Observe(rows, seconds);
    return seconds;
  };
  for (const int64_t rows : {1, 8, 32, 64, 100, 200, 400, 512}) run(rows, 1);
  double seconds = 0;
  for (int i = 0; i < 60; ++i) seconds = run(cost.RowsWithin(0.05, 512), 8);
  EXPECT_LE(seconds, 0.055);
}

TEST(StepCost, NeverAsksForMoreThanTheLimit) {
  StepCost cost;
  cost.Observe(512, 1e-6);
  EXPECT_EQ(cost.RowsWithin(0.05, 512), 512);
  EXPECT_EQ(cost.RowsWithin(0.05, 300), 300);
}

}  // namespace
}  // namespace nibble
