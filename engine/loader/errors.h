// The loader's errors, one function per code of the contract, and the spelling of untrusted names
// and of shapes in their messages. A message begins with the file's base name, never a directory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace nibble {

// DATA_LOSS: the file breaks its own format.
absl::Status CorruptFile(std::string_view file, std::string_view what);
// UNIMPLEMENTED: well formed, but something we do not have; `what` names it.
absl::Status UnsupportedModel(std::string_view file, std::string_view what);
// INVALID_ARGUMENT: there is something at this path, but no model.
absl::Status NotAModel(std::string_view file, std::string_view what);
// FAILED_PRECONDITION: two files, or two parts of one, contradict each other; `what` has both
// sides.
absl::Status InconsistentModel(std::string_view file, std::string_view what);
// INVALID_ARGUMENT: a weight, or what it is computed from, is NaN or infinite; `what` says where.
absl::Status NonFiniteWeight(std::string_view file, std::string_view what);
// For a failed system call: NOT_FOUND, FAILED_PRECONDITION (not allowed), else INTERNAL.
absl::Status SystemError(std::string_view file, int error_number);

// Text out of a file, fit for a message: quoted, escaped to ASCII, at most 80 characters of it.
std::string Quoted(std::string_view text);
// "[32064,2048]"
std::string ShapeText(std::span<const int64_t> shape);
// The last component of a path.
std::string BaseName(std::string_view path);

}  // namespace nibble
