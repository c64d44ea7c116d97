// The text files of a Hugging Face directory, written for a model that came as one GGUF file: what
// its metadata tell in their own words, said in transformers' (4.45 and later) and tokenizers'
// (0.20 and later). Knows no weights and writes to no disk.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "kernels/tensor.h"

namespace nibble {

struct TextFile {
  std::string name;
  std::string text;
};

// config.json of a Llama: an object that ends in "}\n".
//   dtype: of the matrices that keep 16 bits, for "torch_dtype".
// Read back it gives checkpoint.config(), but that rope_freqs.weight has become the linear or
// llama3 scaling that it was computed from.
// Errors: UNIMPLEMENTED for a rope_freqs.weight that is neither.
absl::StatusOr<std::string> HuggingFaceConfig(const Checkpoint& checkpoint, DType dtype);

// tokenizer.json, tokenizer_config.json and generation_config.json; nothing for a model of token
// ids only. tokenizer.json read back encodes and decodes as checkpoint.gguf_tokenizer() does.
// Errors: as Tokenizer::Make(GgufTokenizer).
absl::StatusOr<std::vector<TextFile>> HuggingFaceTokenizerFiles(const Checkpoint& checkpoint);

}  // namespace nibble
