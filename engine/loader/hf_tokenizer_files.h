// The text files around a Hugging Face tokenizer: tokenizer.json, tokenizer_config.json,
// special_tokens_map.json, chat_template.jinja. Keeps the first two as text for the tokenizer room
// and reads of the others only what the rest of the engine asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"

namespace nibble {

struct HfTokenizerFiles {
  std::optional<HuggingFaceTokenizer> tokenizer;  // absent without tokenizer.json
  std::string chat_template;
  std::string bos_token;
  std::string eos_token;
  std::optional<int64_t> eos_id;  // of eos_token, when a file says
  int64_t model_max_length = 0;   // 0: absent, or the huge number that means unlimited
};

// Errors: DATA_LOSS; those of reading a file.
absl::StatusOr<HfTokenizerFiles> ReadHfTokenizerFiles(const std::string& directory);

}  // namespace nibble
