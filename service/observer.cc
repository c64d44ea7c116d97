// The closed sets of names that records and events use.
#include "service/observer.h"

#include <cstddef>
#include <iterator>

namespace nibble {

const char* Name(ServerEvent::Kind kind) {
  static constexpr const char* kNames[] = {
      "listening", "model_loaded", "load_failed", "model_unloaded", "ready",  "draining",
      "stalled",   "recovered",    "device_lost", "accept_failed",  "stopped"};
  return kNames[static_cast<size_t>(kind)];
}

const char* CodeName(absl::StatusCode code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  const auto index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "UNKNOWN";
}

}  // namespace nibble
