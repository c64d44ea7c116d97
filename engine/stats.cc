// The histograms' boundaries and how a value finds its bucket. Knows no metric names.
#include "engine/stats.h"

#include <algorithm>

namespace nibble {

void Histogram::Observe(double value, int64_t times) {
  const auto bucket = std::lower_bound(bounds_->begin(), bounds_->end(), value);
  counts_[static_cast<size_t>(bucket - bounds_->begin())] += times;
  sum_ += value * static_cast<double>(times);
  count_ += times;
}

// Above 10 ms the union of OpenTelemetry's GenAI boundaries for request duration (0.01 · 2^k), time
// to first token and time per output token, so that dashboards agree; below, where embeddings and
// small models live, our own.
const std::vector<double>& LatencyBounds() {
  static const std::vector<double> bounds = {
      0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.015,
      0.02,   0.025, 0.04,   0.05,  0.06,  0.075, 0.08,  0.1,   0.15,  0.16, 0.2,
      0.25,   0.3,   0.32,   0.4,   0.5,   0.64,  0.75,  1.0,   1.28,  2.5,  2.56,
      5.0,    5.12,  7.5,    10.0,  10.24, 20.48, 40.96, 81.92};
  return bounds;
}

const std::vector<double>& CountBounds() {
  static const std::vector<double> bounds = {1,    4,     16,    64,     256,    1024,
                                             4096, 16384, 65536, 262144, 1048576};
  return bounds;
}

}  // namespace nibble
