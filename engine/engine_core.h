// What stands behind Engine: the pieces, in the order in which they must die.
#pragma once

#include <thread>

#include "engine/engine.h"
#include "engine/engine_loop.h"
#include "engine/intake.h"
#include "engine/memory/ledger.h"
#include "engine/registry.h"
#include "engine/scheduler/admission.h"

namespace nibble {

// Thread-safe as its members are; `loop` but for its inbox belongs to `thread`.
struct Engine::Core {
  Core(const EngineOptions& filled, EngineParts given);

  AdmissionLimits admission() const {
    return {options.max_queued_requests, options.max_queued_tokens};
  }

  const EngineOptions options;
  EngineParts parts;
  Ledger ledger;
  const Reservation own_memory;  // the backend's
  EngineLoop loop;
  ModelRegistry registry;
  Intake intake;
  std::thread thread;
};

// What the backend took when it was made.
MemoryPlan OwnMemoryPlan(const Backend& backend);

// EngineParts::load of the real engine: Checkpoint::Open and Model::Load.
absl::StatusOr<LoadedModel> LoadFromDisk(const LoadRequest& request, const LoadTarget& target);

// 80 % of what this process may use: of the smallest cgroup limit above it, or of the machine's
// memory. `root` is where /proc and /sys are, so that tests can bring their own.
int64_t DefaultMemoryBytes(const std::string& root = "");

}  // namespace nibble
