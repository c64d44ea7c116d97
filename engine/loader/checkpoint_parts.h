// What a reader of some layout finds: the pieces that Checkpoint::Open checks against each other
// and makes a Checkpoint of. One function per layout.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/mapped_file.h"
#include "engine/model/config.h"

namespace nibble {

struct CheckpointParts {
  ModelConfig config;
  std::string config_source;       // the base name of the file that the config came from
  std::vector<TensorRef> tensors;  // only those that the architecture computes with
  std::vector<TensorRef> others;
  std::optional<GgufTokenizer> gguf_tokenizer;
  std::optional<HuggingFaceTokenizer> hf_tokenizer;
  std::string chat_template;
  std::string bos_token;
  std::string eos_token;
  std::vector<std::unique_ptr<MappedFile>> files;
};

// Errors: as Checkpoint::Open.
absl::StatusOr<CheckpointParts> ReadHuggingFaceModel(const std::string& directory);
absl::StatusOr<CheckpointParts> ReadGgufModel(const std::string& path);

}  // namespace nibble
