// Moving averages by size of step.
#include "engine/scheduler/step_cost.h"

#include <algorithm>
#include <bit>

#include "engine/check.h"

namespace nibble {
namespace {

// The newest step weighs so much: a change of load is learned in a few steps, one slow step is not.
constexpr double kWeight = 0.2;

// Steps of one row that a step may take when the budget is less.
constexpr double kOneRowSteps = 2;

int SizeOfStep(int64_t rows) {
  return static_cast<int>(std::bit_width(static_cast<uint64_t>(rows) - 1));
}

}  // namespace

void StepCost::Observe(int64_t rows, double seconds) {
  Check(rows > 0, "a step has rows");
  const int size = SizeOfStep(rows);
  double& known = seconds_per_row_[static_cast<size_t>(size)];
  const double seen = std::max(seconds, 1e-9) / static_cast<double>(rows);
  known = known == 0 ? seen : known + kWeight * (seen - known);
  for (int s = 0; s < kSizes; ++s) {
    double& other = seconds_per_row_[static_cast<size_t>(s)];
    if (other > 0) other = s < size ? std::max(other, known) : std::min(other, known);
  }
}

double StepCost::SecondsPerRow(int size) const {
  for (int s = size; s >= 0; --s) {
    if (seconds_per_row_[static_cast<size_t>(s)] > 0) {
      return seconds_per_row_[static_cast<size_t>(s)];
    }
  }
  // Only larger steps are known. A smaller one takes at most the same whole time.
  for (int s = size + 1; s < kSizes; ++s) {
    const double larger = seconds_per_row_[static_cast<size_t>(s)];
    if (larger > 0) return larger * static_cast<double>(int64_t{1} << (s - size));
  }
  return 0;
}

double StepCost::Predict(int64_t rows) const {
  return SecondsPerRow(SizeOfStep(rows)) * static_cast<double>(rows);
}

int64_t StepCost::RowsWithin(double seconds, int64_t max_rows) const {
  if (SecondsPerRow(0) == 0) return std::min(max_rows, kFirstRows);
  seconds = std::max(seconds, kOneRowSteps * seconds_per_row_[0]);
  for (int size = SizeOfStep(max_rows); size > 0; --size) {
    const double fitting = seconds / SecondsPerRow(size);
    const int64_t smallest = (int64_t{1} << (size - 1)) + 1;
    const int64_t largest = std::min(max_rows, int64_t{1} << size);
    if (fitting >= static_cast<double>(largest)) return largest;
    if (fitting >= static_cast<double>(smallest)) return static_cast<int64_t>(fitting);
  }
  return 1;
}

}  // namespace nibble
