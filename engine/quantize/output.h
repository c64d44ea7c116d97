// Bytes onto a disk that may be full. Knows files, not what is in them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace nibble {

// For a failed system call: RESOURCE_EXHAUSTED when there is no room, else INTERNAL; names `file`.
absl::Status WriteFailed(std::string_view file, int error_number);

// All of it at `offset`, or the error. `file`: for messages.
absl::Status WriteAt(int fd, std::string_view file, std::span<const uint8_t> bytes, int64_t offset);
absl::Status WriteAt(int fd, std::string_view file, std::string_view text, int64_t offset);
// What was written has reached the disk.
absl::Status Sync(int fd, std::string_view file);
// A whole new file, on the disk when this returns; replaces one of this name.
absl::Status WriteTextFile(const std::string& path, std::string_view text);

}  // namespace nibble
