// What a rendering may still spend, and its first error. Everything that works for a template is
// charged here; after the first error every charge fails, so that loops end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/jinja_value.h"

namespace nibble::jinja {

class Budget {
 public:
  Budget(int64_t max_steps, int64_t max_text_bytes, int32_t max_depth)
      : steps_left_(max_steps), max_text_bytes_(max_text_bytes), max_depth_(max_depth) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  // False once anything failed: stop working.
  bool Charge(int64_t steps) {
    if (!status_.ok()) return false;
    if (steps <= steps_left_) {
      steps_left_ -= steps;
      return true;
    }
    return Exhaust("steps");
  }
  // A step per 64 bytes made, so that fuel also bounds memory.
  bool ChargeBytes(int64_t bytes) { return Charge(1 + bytes / 64); }
  // Reading is cheaper.
  bool ChargeScan(int64_t bytes) { return Charge(1 + bytes / 256); }
  // Whether a text of so many bytes may be built, asked before it is.
  bool Fits(int64_t bytes) { return ok() && (bytes <= max_text_bytes_ || Exhaust("output bytes")); }
  bool Fits(int64_t bytes, int64_t times);

  // The first error stays. They return Undefined, so that `return budget->TypeError(…)` reads well.
  Value TypeError(std::string_view message);    // INVALID_ARGUMENT
  Value Unsupported(std::string_view feature);  // UNIMPLEMENTED
  Value Refuse(std::string_view message);       // INVALID_ARGUMENT by raise_exception
  bool Exhaust(std::string_view what);          // RESOURCE_EXHAUSTED; false
  // Line of the template for the messages that follow.
  void set_line(int32_t line) { line_ = line; }

  Value Make(Text text);
  Value Make(std::vector<Value> items, bool is_tuple = false);
  Value Make(std::vector<std::pair<Value, Value>> entries);
  // Recursion of the interpreter itself; pairs of Enter and Leave.
  bool Enter() { return ++depth_ <= 8 * max_depth_ ? ok() : Exhaust("depth"); }
  void Leave() { --depth_; }
  bool CheckDepth(int32_t depth) { return depth <= max_depth_ || Exhaust("depth"); }

 private:
  void Fail(absl::StatusCode code, std::string_view reason, std::string_view message);

  int64_t steps_left_;
  const int64_t max_text_bytes_;
  const int32_t max_depth_;
  int32_t depth_ = 0;
  int32_t line_ = 0;
  absl::Status status_;
};

}  // namespace nibble::jinja
