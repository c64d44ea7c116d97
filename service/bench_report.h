// Figures of one bench run: a table for people, one JSON object for machines, ratios against an
// earlier run.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace nibble {

class BenchReport {
 public:
  // Name in snake_case with its unit last: "decode_batch_1_tokens_per_second".
  void Add(std::string name, double value);
  void AddText(std::string name, std::string value);

  // With `compare`, a file that ToJson wrote: each figure beside its ratio to that one.
  // Errors: NOT_FOUND, INVALID_ARGUMENT when it is no such file.
  absl::Status Print(bool json, const std::string& compare) const;
  std::string ToJson() const;

 private:
  std::vector<std::pair<std::string, double>> figures_;
  std::vector<std::pair<std::string, std::string>> texts_;
};

// The q-th part (0 to 1) of the values in order; 0 for none.
double Quantile(std::vector<double> values, double q);

// Tokens per second while all answers run: from the first token of the one that began last to the
// last of its tokens that found all others at work, so that it is whole steps that count. Answers
// that never ran all together are counted to that one's end.
//   answers: when each token of each came, ascending; none is empty.
double SharedRate(const std::vector<std::vector<absl::Time>>& answers);

}  // namespace nibble
