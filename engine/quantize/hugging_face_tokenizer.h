// tokenizer.json for a tokenizer that GGUF tells: the pipeline that tokenizer.ggml.pre names,
// spelled out as in the files of the models so named.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"

namespace nibble {

struct HuggingFaceForm {
  std::string tokenizer_json;
  bool adds_bos = false;
  bool adds_eos = false;
};

// Errors: as Tokenizer::Make(GgufTokenizer).
absl::StatusOr<HuggingFaceForm> ToHuggingFace(const GgufTokenizer& fields);

}  // namespace nibble
