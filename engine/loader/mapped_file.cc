// See mapped_file.h.
#include "engine/loader/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"

namespace nibble {
namespace {

// O_NONBLOCK: opening a pipe without a writer would otherwise wait for one.
absl::StatusOr<int> OpenRegular(const std::string& path, struct stat* info) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return SystemError(BaseName(path), errno);
  absl::Status status;
  if (fstat(fd, info) != 0) {
    status = SystemError(BaseName(path), errno);
  } else if (!S_ISREG(info->st_mode)) {
    status = NotAModel(BaseName(path), "is not a regular file");
  }
  if (status.ok()) return fd;
  close(fd);
  return status;
}

bool SameContent(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

// Reads exactly text.size() bytes.
absl::Status ReadAll(const std::string& file, int fd, std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = read(fd, text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(file, errno);
    if (got == 0) return CorruptFile(file, "became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  struct stat info = {};
  const absl::StatusOr<int> fd = OpenRegular(path, &info);
  if (!fd.ok()) return fd.status();
  std::unique_ptr<MappedFile> file(new MappedFile(BaseName(path), *fd));
  file->opened_ = info;
  if (info.st_size == 0) return file;  // nothing to map
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, *fd, 0);
  if (data == MAP_FAILED) return SystemError(file->name_, errno);
  file->bytes_ = {static_cast<const uint8_t*>(data), size};
  return file;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
  close(fd_);
}

std::string MappedFile::Stamp() const {
  return absl::StrCat(name_, ":", opened_.st_size, ":", opened_.st_mtim.tv_sec, ".",
                      opened_.st_mtim.tv_nsec);
}

absl::Status MappedFile::CheckUnchanged() const {
  struct stat now = {};
  if (fstat(fd_, &now) != 0) return SystemError(name_, errno);
  if (SameContent(now, opened_)) return absl::OkStatus();
  return CorruptFile(name_, absl::StrCat("changed while it was being read: it had ",
                                         opened_.st_size, " bytes and has ", now.st_size));
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes) {
  struct stat info = {};
  const absl::StatusOr<int> fd = OpenRegular(path, &info);
  if (!fd.ok()) return fd.status();
  std::string text;
  absl::Status status;
  if (info.st_size > max_bytes) {
    status = CorruptFile(BaseName(path),
                         absl::StrCat("has ", info.st_size, " bytes, wanted at most ", max_bytes));
  } else {
    text.resize(static_cast<size_t>(info.st_size));
    status = ReadAll(BaseName(path), *fd, text);
  }
  close(*fd);
  if (!status.ok()) return status;
  return text;
}

bool PathExists(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0;
}

}  // namespace nibble
