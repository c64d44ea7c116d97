#include "service/bench_samples.h"

#include <algorithm>
#include <cmath>

#include "service/bench_report.h"

namespace nibble {
namespace {

// A longer call needs no other one before it to wake its threads.
constexpr double kLongCall = 2e-3;

double Now(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double Seconds(const Side& side, int64_t calls, clockid_t clock) {
  const double start = Now(clock);
  for (int64_t i = 0; i < calls; ++i) side.run();
  return std::max(Now(clock) - start, 1e-9);
}

// A side, and how much of it makes a sample.
struct Turn {
  const Side* side;
  int64_t calls;
  bool wake;
};

// The first call is not counted: it meets cold caches and parked threads.
Turn Calibrate(const Side& side, const Pace& pace) {
  side.run();
  const double once = Seconds(side, 1, pace.clock);
  if (side.rest) side.rest();
  return {&side, std::max<int64_t>(1, std::llround(pace.sample_seconds / once)), once < kLongCall};
}

double Rate(const Turn& turn, clockid_t clock) {
  if (turn.wake) turn.side->run();
  const double seconds = Seconds(*turn.side, turn.calls, clock);
  if (turn.side->rest) turn.side->rest();
  return static_cast<double>(turn.calls) / seconds;
}

}  // namespace

std::vector<std::vector<double>> MeasureInTurn(const std::vector<Side>& sides, const Pace& pace) {
  std::vector<Turn> turns;
  for (const Side& side : sides) turns.push_back(Calibrate(side, pace));
  std::vector<std::vector<double>> rates(sides.size());
  const double end = Now(CLOCK_MONOTONIC) + pace.limit_seconds;
  for (int round = 0; round < pace.samples; ++round) {
    if (round >= kMinSamples && Now(CLOCK_MONOTONIC) > end) break;
    for (size_t i = 0; i < turns.size(); ++i) rates[i].push_back(Rate(turns[i], pace.clock));
  }
  return rates;
}

Spread SpreadOf(const std::vector<double>& values) {
  return {Quantile(values, 0.5), Quantile(values, 0), Quantile(values, 1),
          static_cast<int>(values.size())};
}

Spread Scaled(const Spread& spread, double factor) {
  return {spread.median * factor, spread.min * factor, spread.max * factor, spread.samples};
}

std::vector<double> Ratios(const std::vector<double>& a, const std::vector<double>& b,
                           double scale) {
  std::vector<double> ratios;
  for (size_t i = 0; i < a.size(); ++i) ratios.push_back(scale * a[i] / b[i]);
  return ratios;
}

}  // namespace nibble
