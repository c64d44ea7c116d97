// Files of a model as bytes: mapped for tensors, read for text. Only regular files (through
// symbolic links), so that a pipe or a device cannot hang a load. Knows nothing of what the bytes
// mean.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nibble {

// A whole file, mapped read-only for this object's lifetime. Immutable, so any thread may read.
// The mapping is as long as the file was at Open. Another process that truncates the file while it
// is mapped takes the pages away, and touching them is then a SIGBUS: model files must be replaced
// by renaming, never in place. CheckUnchanged finds such a writer as long as nobody touched them.
class MappedFile {
 public:
  // Errors: NOT_FOUND, INVALID_ARGUMENT (not a regular file), FAILED_PRECONDITION (not readable),
  // INTERNAL (the system refused).
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& name() const { return name_; }  // the base name
  // Name, size and time of modification at Open: "model.safetensors:5044:1700000000.123".
  std::string Stamp() const;
  std::span<const uint8_t> bytes() const { return bytes_; }
  // DATA_LOSS when the file's size or time of modification is not what it was at Open.
  absl::Status CheckUnchanged() const;

 private:
  MappedFile(std::string name, int fd) : name_(std::move(name)), fd_(fd) {}

  std::string name_;
  int fd_;
  struct stat opened_ = {};
  std::span<const uint8_t> bytes_;
};

// The text of a file of at most max_bytes. Errors: as MappedFile::Open; DATA_LOSS when it is longer
// or changes while it is read.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes);

// Whether something is at this path (a dangling symbolic link is nothing).
bool PathExists(const std::string& path);

}  // namespace nibble
