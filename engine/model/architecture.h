// The table of architectures: a new one is a row here and a file that reads as its equations.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "engine/model/config.h"
#include "engine/model/inventory.h"
#include "engine/model/workspace.h"
#include "engine/step.h"

namespace nibble {

class Model;

struct ArchitectureRow {
  Architecture architecture;
  const char* name;
  bool has_kv_cache;  // false: inputs are computed whole, and a step must hold the longest
  // What this file's forward pass needs of a config before a tensor is looked at.
  // Errors: UNIMPLEMENTED (a variant we do not have, by name), FAILED_PRECONDITION (impossible).
  absl::Status (*check)(const ModelConfig& config);
  // Asks the inventory for its tensors and the workspace for its buffers.
  std::unique_ptr<Model> (*make)(const ModelConfig& config, const StepLimits& limits,
                                 Inventory* inventory, Workspace* workspace);
};

const ArchitectureRow& FindArchitecture(Architecture architecture);

}  // namespace nibble
