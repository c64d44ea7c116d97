// A GGUF file's metadata as a model's config, and its tensors under Hugging Face's names.
// Architecture `llama` only.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/gguf.h"
#include "engine/model/config.h"

namespace nibble {

// Whatever the tensors tell (vocab, tied head, biases, RoPE divisors) is taken from them.
// Errors: UNIMPLEMENTED by name, DATA_LOSS (a field missing, of the wrong kind or out of range),
// FAILED_PRECONDITION (fields that contradict each other or a tensor).
absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file);

// The file's tensors but rope_freqs.weight, renamed: blk.N.attn_q.weight becomes
// model.layers.N.self_attn.q_proj.weight. q and k are marked as permuted. Names that the
// architecture does not have stay as they are.
std::vector<TensorRef> TranslateTensors(const GgufFile& file, const ModelConfig& config);

}  // namespace nibble
