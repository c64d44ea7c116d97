// The safetensors files of a Hugging Face directory, one or sharded, as tensors under canonical
// names: with the prefix "model." for Llama, without "bert." for BERT, LayerNorm.{weight,bias}.
// A matrix of bitsandbytes' is one tensor, whatever files its parts lie in. Tensors that the
// architecture does not compute with (pooler, position_ids, a tied head) are left out.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/mapped_file.h"
#include "engine/model/config.h"

namespace nibble {

struct HfWeights {
  std::vector<TensorRef> tensors;
  std::vector<TensorRef> others;  // Checkpoint::others
  std::vector<std::unique_ptr<MappedFile>> files;
};

// Errors: DATA_LOSS, UNIMPLEMENTED (a dtype that we do not have; weights only as pickles),
// INVALID_ARGUMENT (no weights), NOT_FOUND (a shard that the index names).
absl::StatusOr<HfWeights> ReadHfWeights(const std::string& directory, const ModelConfig& config);

// Nothing for a tensor to leave out.
std::optional<std::string> CanonicalName(const ModelConfig& config, std::string_view name);

}  // namespace nibble
