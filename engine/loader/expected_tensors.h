// Which tensors an architecture computes with, by name and shape: the checkpoint's side of the
// bargain, checked when it is opened so that nobody later meets a missing or misshapen one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/loader/checkpoint.h"
#include "engine/model/config.h"

namespace nibble {

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
  bool multiplied = false;  // a linear layer's matrix, which may be bitsandbytes'
};

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// The checkpoint has exactly the tensors that its config asks for, in exactly their shapes, vectors
// in a plain type, and embeddings not as a bitsandbytes matrix. Errors: FAILED_PRECONDITION naming
// file, tensor, got and wanted; UNIMPLEMENTED for a vector in blocks or a quantized embedding.
absl::Status CheckTensors(const Checkpoint& checkpoint);

}  // namespace nibble
