// A tokenizer from GGUF's metadata, which names the pipeline (tokenizer.ggml.pre) instead of
// telling it.
#pragma once

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/tokenizer/pipeline.h"

namespace nibble {

// Errors: DATA_LOSS, UNIMPLEMENTED naming tokenizer.ggml.model or tokenizer.ggml.pre.
absl::StatusOr<PipelineParts> ReadGguf(const GgufTokenizer& fields);

}  // namespace nibble
