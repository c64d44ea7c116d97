// Hugging Face's tokenizer.json and tokenizer_config.json:
//
//   tokenizer.json := {"version": "1.0", "truncation", "padding",        both ignored
//                      "added_tokens": [{"id", "content", "single_word", "lstrip", "rstrip",
//                                        "normalized", "special"}…],
//                      "normalizer", "pre_tokenizer", "post_processor", "decoder": a component,
//                      null "model": {"type": "BPE", "vocab": {text: id…}, "merges": ["a b"…] or
//                                [["a", "b"]…], …} or {"type": "WordPiece", "vocab", …}}
//   component      := {"type": its name, …}
//   tokenizer_config.json := {"bos_token", "eos_token": text or {"content": text}, …}
//
// Source: huggingface/tokenizers, whose deserializers are the only definition.
#pragma once

#include <simdjson.h>

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/tokenizer/pipeline.h"

namespace nibble {

inline constexpr char kTokenizerJson[] = "tokenizer.json";

// Errors: DATA_LOSS, UNIMPLEMENTED naming the component.
absl::StatusOr<PipelineParts> ReadHuggingFace(const HuggingFaceTokenizer& files);

// The rest are its parts. A component may be absent.
using JsonComponent = std::optional<simdjson::dom::element>;

struct PreTokenizerPart {
  PreTokenizer pre_tokenizer;
  bool byte_level = false;
};
absl::StatusOr<Normalizer> ReadNormalizer(JsonComponent component);
absl::StatusOr<PreTokenizerPart> ReadPreTokenizer(JsonComponent component);
absl::StatusOr<PostProcessor> ReadPostProcessor(JsonComponent component);
absl::StatusOr<Decoder> ReadDecoder(JsonComponent component);

struct ModelPart {
  std::unique_ptr<Vocabulary> vocabulary;
  std::unique_ptr<const TokenModel> model;
};
// num_added: how many tokens may be added to the vocabulary.
absl::StatusOr<ModelPart> ReadModel(simdjson::dom::element element, bool byte_level,
                                    size_t num_added);

}  // namespace nibble
