// Splits a text into the pieces that a model turns into tokens, each by itself. A list of splitting
// steps, each applied to every piece that the step before it left. Knows no vocabulary.
#pragma once

#include <vector>

#include "absl/functional/function_ref.h"
#include "engine/tokenizer/split_pattern.h"
#include "engine/tokenizer/traced_text.h"

namespace nibble {

struct SplitStep {
  // Before splitting, puts a space before a piece that does not begin with one.
  bool add_prefix_space = false;
  Scanner scanner = nullptr;  // null: splits nothing
  bool keep_matches = true;   // false: what the scanner matches is dropped
  bool keep_gaps = true;      // false: what lies between matches is dropped
};

// Immutable; thread-safe.
class PreTokenizer {
 public:
  using Emit = absl::FunctionRef<void(const TracedText&)>;
  static constexpr size_t kMaxSteps = 16;

  PreTokenizer() = default;  // one piece
  explicit PreTokenizer(std::vector<SplitStep> steps);

  // Calls emit for each piece in order; pieces are not empty and live only during the call.
  void Split(const TracedText& text, bool traced, Emit emit) const { Run(0, text, traced, emit); }

  int64_t MemoryBytes() const {
    return static_cast<int64_t>(steps_.capacity() * sizeof(SplitStep));
  }

 private:
  void Run(size_t step, const TracedText& text, bool traced, Emit emit) const;
  void Scan(size_t step, const TracedText& text, bool traced, Emit emit) const;

  std::vector<SplitStep> steps_;  // at most kMaxSteps: Run's depth
};

}  // namespace nibble
