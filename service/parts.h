// What the services share: plain pointers to what the server owns and outlives them all.
#pragma once

#include <functional>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/status.h"
#include "service/door.h"
#include "service/health.h"
#include "service/model_root.h"
#include "service/server_options.h"
#include "service/stall_watch.h"
#include "service/workers.h"

namespace nibble {

struct ServiceParts {
  const ServerOptions* options = nullptr;
  Engine* engine = nullptr;
  Door* door = nullptr;
  Health* health = nullptr;
  StallWatch* stall_watch = nullptr;
  const ModelRoot* model_root = nullptr;
  Workers* encoders = nullptr;  // encode, render, small answers; bounded by max_queued_calls
  Workers* loaders = nullptr;   // load, unload, estimate
  Workers* writers = nullptr;   // move tokens from the engine to gRPC; bounded by the streams
  std::function<void(absl::Duration)> begin_drain;
  absl::Time started;
};

// The answer when a pool's queue is full.
inline absl::Status ServerBusy() {
  return RetryLater("SERVER_BUSY", "too many calls wait for a thread", absl::Seconds(1));
}

}  // namespace nibble
