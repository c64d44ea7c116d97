// Bounds and rules that a model's config must keep, whatever file it came from, so that later
// arithmetic on it cannot overflow.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "engine/loader/value.h"
#include "engine/model/config.h"

namespace nibble {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxWidth = 1 << 22;  // hidden, ffn, head_dim
constexpr int64_t kMaxVocab = 1 << 28;
constexpr int64_t kMaxPositions = 1 << 30;
// Factors, bases and epsilons: positive and finite in fp32.
constexpr double kMinReal = 1e-30;
constexpr double kMaxReal = 1e30;

// Heads that divide evenly, an even head_dim under RoPE. `where` is the file's base name.
// Errors: FAILED_PRECONDITION with both values.
absl::Status CheckConfig(std::string_view where, const ModelConfig& config);

// Adds one id to the end-of-answer set unless it is there; negative means none. vocab must be
// known. Errors: FAILED_PRECONDITION for an id that the embedding has no row for.
absl::Status AddEosId(std::string_view where, int64_t id, ModelConfig& config);

}  // namespace nibble
