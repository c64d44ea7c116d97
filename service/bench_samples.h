// Rates taken in turn, A B C A B C …, so that whatever else the machine does meets all of them
// alike: the raw material of every ratio. Knows no kernel.
#pragma once

#include <time.h>

#include <functional>
#include <string>
#include <vector>

namespace nibble {

// One of the things that are compared.
struct Side {
  std::function<void()> run;   // one call
  std::function<void()> rest;  // after its turn: its threads park and leave the CPUs to the next
};

struct Pace {
  int samples = 30;
  double sample_seconds = 1e-3;  // of one sample, as many calls as it takes
  double limit_seconds = 4;      // then no further round begins, but kMinSamples there are
  clockid_t clock = CLOCK_MONOTONIC;
};
inline constexpr int kMinSamples = 5;

// rates[i][j]: calls of side i per second in round j.
std::vector<std::vector<double>> MeasureInTurn(const std::vector<Side>& sides, const Pace& pace);

// A figure as it is told: the median of its samples, and how far they lie apart.
struct Spread {
  double median = 0, min = 0, max = 0;
  int samples = 0;
};
Spread SpreadOf(const std::vector<double>& values);
Spread Scaled(const Spread& spread, double factor);

// values[j] = scale · a[j] / b[j].
std::vector<double> Ratios(const std::vector<double>& a, const std::vector<double>& b,
                           double scale);

}  // namespace nibble
