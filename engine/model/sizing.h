// From what was asked for to what will be: options with their defaults filled in, and how much KV
// cache there will be. Pure arithmetic on untrusted numbers.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/memory/ledger.h"
#include "engine/model/config.h"
#include "engine/model/model.h"
#include "kernels/kv_layout.h"

namespace nibble {

// The default KV cache holds this many positions, or one context if that is more.
inline constexpr int64_t kDefaultKvPositions = 16384;

// FAILED_PRECONDITION unless every dimension that any architecture divides or allocates by is
// between 1 and 2^31 - 1.
absl::Status CheckDimensions(const ModelConfig& config);

// Fills in weights (from a file that is quantized also group_size and double_quant), kv_dtype and
// max_context. `quantized`: the file's first quantized matrix, or null.
// Errors: INVALID_ARGUMENT with the option's field.
absl::StatusOr<ModelOptions> ResolveOptions(const ModelOptions& options, const ModelConfig& config,
                                            const TensorRef* quantized);

// Chooses the number of pages: what options.kv_bytes holds, or else the default if `free_bytes`
// allows it beside `others`, or else what is left. Lowers options->max_context to what an explicit
// kv_bytes holds. `data` stays null. Errors: INVALID_ARGUMENT (kv_bytes below one page),
// FAILED_PRECONDITION (one context does not fit, with the breakdown and what to change).
absl::StatusOr<KvCache> SizeKvCache(const ModelConfig& config, const MemoryPlan& others,
                                    int64_t free_bytes, ModelOptions* options);

}  // namespace nibble
