// See the header.
#include "engine/quantize/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/fd.h"
#include "engine/loader/errors.h"
#include "engine/status.h"

namespace nibble {

absl::Status WriteFailed(std::string_view file, int error_number) {
  const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  return Error(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal,
               full ? "DISK_FULL" : "WRITE_FAILED",
               absl::StrCat("cannot write ", Str(file), ": ", std::strerror(error_number)));
}

absl::Status WriteAt(int fd, std::string_view file, std::span<const uint8_t> bytes,
                     int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return WriteFailed(file, written < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
  return absl::OkStatus();
}

absl::Status WriteAt(int fd, std::string_view file, std::string_view text, int64_t offset) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  return WriteAt(fd, file, std::span(bytes, text.size()), offset);
}

absl::Status Sync(int fd, std::string_view file) {
  return fdatasync(fd) == 0 ? absl::OkStatus() : WriteFailed(file, errno);
}

absl::Status WriteTextFile(const std::string& path, std::string_view text) {
  const std::string name = BaseName(path);
  const Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!file) return WriteFailed(name, errno);
  if (absl::Status status = WriteAt(file.get(), name, text, 0); !status.ok()) return status;
  return Sync(file.get(), name);
}

}  // namespace nibble
