// A bound TCP socket: the address is checked and taken before anything slow begins, so that a port
// in use is told at once.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/fd.h"

namespace nibble {

struct Listener {
  Fd fd;                // listening, non-blocking
  int port = 0;         // bound
  std::string address;  // "127.0.0.1:50051", "[::1]:50051": with the bound port
  bool loopback = false;
};

// address: "IPv4:PORT", "[IPv6]:PORT" or "localhost:PORT"; port 0: any. "[::]" takes IPv4 as well.
// `flag` names the setting in messages.
// Errors: INVALID_ARGUMENT (not an address), UNAVAILABLE (in use, or not of this machine),
// PERMISSION_DENIED (a port below 1024 without the right).
absl::StatusOr<Listener> Listen(const std::string& flag, const std::string& address);

}  // namespace nibble
