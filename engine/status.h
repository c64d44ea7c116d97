// Errors with a reason: an absl::Status whose payloads say, in plain bytes, what
// google.rpc.ErrorInfo, BadRequest and RetryInfo will say at the door. The engine knows no proto.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace nibble {

// absl::StrCat in this Debian does not take std::string_view; this does.
inline std::string Str(std::string_view text) { return std::string(text); }

// reason: UPPER_SNAKE, stable, listed in engine/README.md. field: the request's field path, or
// empty.
absl::Status Error(absl::StatusCode code, std::string_view reason, std::string_view message,
                   std::string_view field = {});
// RESOURCE_EXHAUSTED with advice when to come back.
absl::Status RetryLater(std::string_view reason, std::string_view message, absl::Duration after);

std::string ReasonOf(const absl::Status& status);  // "" when it has none
std::string FieldOf(const absl::Status& status);
std::optional<absl::Duration> RetryAfterOf(const absl::Status& status);

}  // namespace nibble
