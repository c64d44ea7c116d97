// Turns the source that a client names into a path that lies under --model-root, whatever it says.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace nibble {

// Immutable; thread-safe.
class ModelRoot {
 public:
  ModelRoot() = default;  // none: Resolve refuses
  // Errors: NOT_FOUND, INVALID_ARGUMENT (not a directory).
  static absl::StatusOr<ModelRoot> Open(const std::string& directory);

  bool enabled() const { return !root_.empty(); }
  // The canonical path of `source`, a relative path without "..", following symbolic links as far
  // as they stay under the root.
  // Errors: UNIMPLEMENTED (no root), INVALID_ARGUMENT (empty, absolute, "..", leads out),
  // NOT_FOUND. No message holds the root.
  absl::StatusOr<std::string> Resolve(std::string_view source) const;
  // `message` without the root's own path: for clients.
  std::string Scrub(std::string_view message) const;

 private:
  std::string root_;  // canonical, without a trailing slash
};

}  // namespace nibble
