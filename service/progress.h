// How far something has come: a bar on a terminal, plain lines when piped, nothing for what is done
// within a second.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/time/time.h"

namespace nibble {

class Progress {
 public:
  // label: "loading smollm2". Writes to `out` (stderr in the program).
  Progress(std::string label, std::FILE* out, bool is_terminal);
  ~Progress();  // ends the line that it has begun
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Bytes done of all; all may be 0 when unknown. Draws at most ten times a second (a line: every
  // two seconds).
  void Update(int64_t done, int64_t all, absl::Time now);

 private:
  const std::string label_;
  std::FILE* const out_;
  const bool is_terminal_;
  absl::Time started_ = absl::InfinitePast();
  absl::Time drawn_ = absl::InfinitePast();
  bool line_open_ = false;
};

}  // namespace nibble
