// Everything of a model but its tensors: copied beside them, or made from a GGUF file's metadata.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/quantize/bitsandbytes_writer.h"

namespace nibble {

// Writes config.json with its quantization_config, tokenizer files, chat templates and
// sentence-transformers' files into `directory`. Errors: UNIMPLEMENTED (a GGUF tokenizer without a
// Hugging Face form), DATA_LOSS, RESOURCE_EXHAUSTED, INTERNAL.
absl::Status WriteModelFiles(const Checkpoint& checkpoint, const QuantizationText& quantization,
                             const std::string& directory);

// The text of a config.json with "quantization_config" as its last member, otherwise untouched. One
// that has it already keeps it, but for the storage type, which becomes uint8.
// Errors: DATA_LOSS when the text is no JSON object.
absl::StatusOr<std::string> WithQuantizationConfig(std::string_view config,
                                                   const QuantizationText& quantization);

}  // namespace nibble
