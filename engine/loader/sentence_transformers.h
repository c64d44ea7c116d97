// The files that sentence-transformers puts around an encoder: modules.json (the list of modules),
// each Pooling module's config.json, sentence_bert_config.json, config_sentence_transformers.json.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/config.h"

namespace nibble {

struct SentenceModules {
  EmbeddingConfig embedding;     // present is false without modules.json
  std::string transformer_path;  // the encoder's own folder below the model's; usually empty
  int64_t pooled_width = 0;      // what Pooling says hidden is; 0: nothing
  bool lower_cases = false;      // the text is lower-cased before it is tokenized
};

// Errors: DATA_LOSS, UNIMPLEMENTED (a module or a pooling mode that we do not have, by name),
// FAILED_PRECONDITION (a default prompt that does not exist); those of reading a file.
absl::StatusOr<SentenceModules> ReadSentenceTransformers(const std::string& directory);

}  // namespace nibble
