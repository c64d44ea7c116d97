// A bounded read of a regular file.
#include "service/small_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/fd.h"
#include "engine/status.h"

namespace nibble {
namespace {

absl::Status CannotRead(const std::string& flag, const std::string& path, int error) {
  const auto code = error == ENOENT || error == ENOTDIR ? absl::StatusCode::kNotFound
                                                        : absl::StatusCode::kPermissionDenied;
  return Error(code, "CANNOT_READ_FILE",
               absl::StrCat(flag, ": cannot read ", path, ": ", std::strerror(error)));
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& flag, const std::string& path,
                                          int64_t max_bytes) {
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return CannotRead(flag, path, errno);
  struct stat info;
  if (fstat(file.get(), &info) != 0) return CannotRead(flag, path, errno);
  if (!S_ISREG(info.st_mode) || info.st_size > max_bytes) {
    return Error(absl::StatusCode::kInvalidArgument, "BAD_FILE",
                 absl::StrCat(flag, ": ", path, " is not a file of at most ", max_bytes, " bytes"));
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = read(file.get(), text.data() + filled, text.size() - filled);
    if (count < 0 && errno != EINTR) return CannotRead(flag, path, errno);
    if (count == 0) break;  // it shrank meanwhile
    if (count > 0) filled += static_cast<size_t>(count);
  }
  text.resize(filled);
  return text;
}

}  // namespace nibble
