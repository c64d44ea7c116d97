// What a step of so many rows takes, learned from the steps that were run. No clock: seconds come
// in as numbers.
#pragma once

#include <array>
#include <cstdint>

namespace nibble {

// Steps are kept apart by size, in powers of two, each with its own moving average of seconds per
// row. Weights are read once per step, so a row of a larger step never costs more than one of a
// smaller step: what was just seen corrects the sizes on both sides that say otherwise, and a size
// never seen is judged by its nearest smaller neighbour, too slow rather than too fast.
class StepCost {
 public:
  void Observe(int64_t rows, double seconds);
  // Seconds that a step of `rows` will take; 0 while nothing was observed.
  double Predict(int64_t rows) const;
  // The most rows, from 1 to max_rows, whose step should take no longer than `seconds`, or than
  // twice a step of one row if that is more: weights are read once for all rows, so where even one
  // row is slow, many cost hardly more.
  int64_t RowsWithin(double seconds, int64_t max_rows) const;

  static constexpr int64_t kFirstRows = 32;  // asked of a model that has not run yet

 private:
  static constexpr int kSizes = 32;  // size s: rows in (2^(s-1), 2^s]
  double SecondsPerRow(int size) const;

  std::array<double, kSizes> seconds_per_row_{};  // 0: never seen
};

}  // namespace nibble
