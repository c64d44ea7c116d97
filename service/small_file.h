// Reads a whole small file of the operator's: a certificate, a list of tokens.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace nibble {

// `flag` names the setting in messages.
// Errors: NOT_FOUND; PERMISSION_DENIED; INVALID_ARGUMENT (over max_bytes, or not a file).
absl::StatusOr<std::string> ReadSmallFile(const std::string& flag, const std::string& path,
                                          int64_t max_bytes);

}  // namespace nibble
