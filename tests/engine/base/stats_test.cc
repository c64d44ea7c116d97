// Histograms put every value in the bucket that Prometheus' `le` means, and agree with
// OpenTelemetry's dashboards.
#include "engine/stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace nibble {
namespace {

bool Contains(const std::vector<double>& bounds, double value) {
  return std::find(bounds.begin(), bounds.end(), value) != bounds.end();
}

TEST(Histogram, CountsAValueInTheFirstBucketWhoseBoundIsNotBelowIt) {
  static const std::vector<double> bounds = {1, 2, 4};
  Histogram histogram(bounds);
  for (const double value : {0.0, 1.0, 1.5, 2.0, 4.0, 4.5}) histogram.Observe(value);
  EXPECT_EQ(histogram.counts(), (std::vector<int64_t>{2, 2, 1, 1}));
  EXPECT_EQ(histogram.count(), 6);
  EXPECT_DOUBLE_EQ(histogram.sum(), 13.0);
}

TEST(Histogram, CountsOneObservationManyTimes) {
  static const std::vector<double> bounds = {1};
  Histogram histogram(bounds);
  histogram.Observe(0.25, 8);
  histogram.Observe(3, 0);
  EXPECT_EQ(histogram.counts(), (std::vector<int64_t>{8, 0}));
  EXPECT_EQ(histogram.count(), 8);
  EXPECT_DOUBLE_EQ(histogram.sum(), 2.0);
}

TEST(LatencyBounds, StartAtHalfAMillisecondAndAscend) {
  const std::vector<double>& bounds = LatencyBounds();
  EXPECT_EQ(bounds.front(), 0.0005);
  EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end(), std::less_equal<double>()));
  EXPECT_GE(std::count_if(bounds.begin(), bounds.end(), [](double b) { return b < 0.01; }), 8);
}

TEST(LatencyBounds, ContainOpenTelemetrysBoundaries) {
  for (int k = 0; k <= 13; ++k) {
    const double bound = std::round(std::ldexp(0.01, k) * 100) / 100;
    EXPECT_TRUE(Contains(LatencyBounds(), bound)) << bound;
  }
  for (const double bound : {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0,
                             2.5, 5.0, 7.5, 10.0}) {
    EXPECT_TRUE(Contains(LatencyBounds(), bound)) << bound;  // time to first token
  }
  for (const double bound :
       {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5}) {
    EXPECT_TRUE(Contains(LatencyBounds(), bound)) << bound;  // time per output token
  }
}

TEST(CountBounds, ArePowersOfFour) {
  ASSERT_EQ(CountBounds().size(), 11u);
  for (size_t k = 0; k < CountBounds().size(); ++k) {
    EXPECT_EQ(CountBounds()[k], std::pow(4.0, static_cast<double>(k)));
  }
}

}  // namespace
}  // namespace nibble
