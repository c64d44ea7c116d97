// Milliseconds as clients give them.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/status.h"

namespace nibble {

// `absent` when the field is. Errors: INVALID_ARGUMENT unless 0 … 3,600,000 (NaN included).
inline absl::StatusOr<absl::Duration> MillisecondsOf(const char* field, bool present, double value,
                                                     absl::Duration absent) {
  if (!present) return absent;
  if (value >= 0 && value <= 3'600'000) return absl::Milliseconds(value);
  return Error(absl::StatusCode::kInvalidArgument, "VALUE_OUT_OF_RANGE",
               absl::StrCat(field, ": ", value, " is not in [0, 3600000]"), field);
}

}  // namespace nibble
