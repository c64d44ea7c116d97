// config.json and generation_config.json of Hugging Face, as transformers 4 and 5 spell them.
// Knows their fields, no file and no tensor.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/value.h"
#include "engine/model/config.h"

namespace nibble {

// config: config.json's object. Leaves out what other files say: dtype, embedding.
// Errors: DATA_LOSS (a field missing, of the wrong kind or out of range), UNIMPLEMENTED (by name),
// FAILED_PRECONDITION (fields that contradict each other).
absl::StatusOr<ModelConfig> ParseHfConfig(const Value& config);

// Adds generation_config.json. Its eos ids join config.json's. Errors: as ParseHfConfig.
absl::Status AddGenerationConfig(const Value& generation_config, ModelConfig& config);

}  // namespace nibble
