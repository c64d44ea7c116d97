// Owners of what the runtime hands out (runtime.h): move-only, given back when they die.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/runtime.h"

namespace nibble::cuda {

struct GiveBack {
  void operator()(Stream* stream) const { Destroy(stream); }
  void operator()(Graph* graph) const { Destroy(graph); }
};
struct GiveBackDevice {
  void operator()(char* device) const { Free(device); }
};
struct GiveBackHost {
  void operator()(char* host) const { FreeHost(host); }
};

using OwnedStream = std::unique_ptr<Stream, GiveBack>;
using OwnedGraph = std::unique_ptr<Graph, GiveBack>;
using OwnedDevice = std::unique_ptr<char, GiveBackDevice>;
using OwnedHost = std::unique_ptr<char, GiveBackHost>;

// The value made, or null and *status is why; nothing is made when *status is an error already.
template <typename Owned, typename Made>
Owned Own(const absl::StatusOr<Made>& made, absl::Status* status) {
  if (!made.ok()) {
    *status = made.status();
    return nullptr;
  }
  return Owned(static_cast<typename Owned::pointer>(*made));
}

}  // namespace nibble::cuda
