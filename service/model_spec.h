// The words that name a model and how to hold it: --model NAME=PATH[,option=value,…], and the same
// options as flags.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "service/flags.h"

namespace nibble {

// "smollm2=/models/smol.gguf,weights=nf4,kv_dtype=fp32". A comma inside a path is not possible.
// Options: weights (nf4, fp4, int8, bf16), head (nf4, int8, bf16), group_size, double_quant (true,
// false), skip_modules (lm_head+mlp.gate), kv_dtype (fp16, bf16, fp32), max_context, kv_bytes.
// Errors: INVALID_ARGUMENT naming the option and what it takes.
absl::StatusOr<LoadRequest> ParseModelSpec(const std::string& spec);

// --weights, --group-size, … for commands that take one path. Empty texts mean absent.
struct ModelFlags {
  std::string weights, head, kv_dtype, skip_modules;
  int32_t group_size = 64;
  bool double_quant = true;
  int64_t max_context = 0;
  int64_t kv_bytes = 0;
};
void AddModelFlags(Flags* flags, ModelFlags* options);
absl::StatusOr<ModelOptions> ToModelOptions(const ModelFlags& flags);

}  // namespace nibble
