// The goals that a run of `nibble bench kernels` can show: ratios of this machine's own peaks, with
// the least that counts as done and what is aimed at. Knows how each is measured, not how it is
// told.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "service/bench_machine.h"

namespace nibble {

struct GoalLine {
  std::string id;    // "C1"
  std::string what;  // "nf4+dq, fp32, M=1, bytes/s of read"
  std::optional<double> floor, goal;
  std::optional<Spread> figure;  // absent: not run, and `note` says why
  std::string note;
  // "goal", "floor" (no more than that), "below", "not run".
  const char* Verdict() const;
};

// Those whose "ID what" contains `only`, in the order of their ids; all of them if it is empty.
// small: matrices that take no time, whose figures mean nothing.
std::vector<GoalLine> MeasureGoals(BenchMachine* machine, const std::string& only, bool small);

}  // namespace nibble
