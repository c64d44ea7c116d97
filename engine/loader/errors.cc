// See errors.h.
#include "engine/loader/errors.h"

#include <cerrno>
#include <cstring>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/status.h"

namespace nibble {
namespace {

absl::Status FileError(absl::StatusCode code, std::string_view reason, std::string_view file,
                       std::string_view what) {
  return Error(code, reason, absl::StrCat(Str(file), ": ", Str(what)));
}

}  // namespace

absl::Status CorruptFile(std::string_view file, std::string_view what) {
  return FileError(absl::StatusCode::kDataLoss, "CORRUPT_MODEL_FILE", file, what);
}

absl::Status UnsupportedModel(std::string_view file, std::string_view what) {
  return FileError(absl::StatusCode::kUnimplemented, "UNSUPPORTED_MODEL", file, what);
}

absl::Status NotAModel(std::string_view file, std::string_view what) {
  return FileError(absl::StatusCode::kInvalidArgument, "NOT_A_MODEL", file, what);
}

absl::Status InconsistentModel(std::string_view file, std::string_view what) {
  return FileError(absl::StatusCode::kFailedPrecondition, "INCONSISTENT_MODEL", file, what);
}

absl::Status NonFiniteWeight(std::string_view file, std::string_view what) {
  return FileError(absl::StatusCode::kInvalidArgument, "WEIGHT_NOT_FINITE", file,
                   absl::StrCat(Str(what), "; a weight must be finite"));
}

absl::Status SystemError(std::string_view file, int error_number) {
  const std::string what = std::system_category().message(error_number);
  if (error_number == ENOENT || error_number == ENOTDIR) {
    return FileError(absl::StatusCode::kNotFound, "MODEL_NOT_FOUND", file, what);
  }
  if (error_number == ELOOP || error_number == ENAMETOOLONG || error_number == ENXIO) {
    return NotAModel(file, what);
  }
  if (error_number == EACCES || error_number == EPERM) {
    return FileError(absl::StatusCode::kFailedPrecondition, "MODEL_NOT_READABLE", file, what);
  }
  return FileError(absl::StatusCode::kInternal, "MODEL_READ_FAILED", file, what);
}

std::string Quoted(std::string_view text) {
  constexpr size_t kLongest = 80;
  const bool cut = text.size() > kLongest;
  const std::string escaped = absl::CHexEscape(Str(text.substr(0, kLongest)));
  return absl::StrCat("\"", escaped, cut ? "…\"" : "\"");
}

std::string ShapeText(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ","), "]");
}

std::string BaseName(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return Str(slash == std::string_view::npos || path.size() == 1 ? path : path.substr(slash + 1));
}

}  // namespace nibble
