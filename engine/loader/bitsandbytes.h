// bitsandbytes' matrices in safetensors files: which tensors belong together, and whether they are
// the matrix that they say. Each matrix "X.weight" [N, K] of n = N·K values lies in several
// tensors:
//
//   4 bits  X.weight                    U8 [(n+1)/2, 1], or those bytes as F16, BF16 or F32
//           X.weight.quant_state.bitsandbytes__nf4 | …__fp4       U8: JSON, see quant_state.h
//           X.weight.quant_map          F32 [16]: what the codes stand for
//           X.weight.absmax             F32 [G], G = ceil(n / blocksize); nested: U8 [G]
//           X.weight.nested_absmax      F32 [ceil(G / 256)]       nested only
//           X.weight.nested_quant_map   F32 [256]                 nested only
//   8 bits  X.weight                    I8 [N, K]
//           X.SCB                       F32 [N]
//           X.weight_format             U8, one value: 0 (row-major); may be absent
//
// Companions may lie in another file than their matrix. Knows no model and no config.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/safetensors.h"

namespace nibble {

// One tensor and the base name of the file that it lies in.
struct StoredTensor {
  std::string file;
  SafetensorsEntry entry;
};

// What is stored beside a matrix, by key: "absmax", "quant_state.bitsandbytes__nf4", "SCB", …
using Companions = std::map<std::string, const StoredTensor*, std::less<>>;

struct CompanionName {
  std::string matrix;  // "X.weight"
  std::string key;
  bool known = false;  // one of bitsandbytes'
};
// Nothing for a name that has not the form of a companion's.
std::optional<CompanionName> SplitCompanionName(std::string_view name);

// The matrix under this name. `companions` has at least one known key.
// Errors: DATA_LOSS (a companion missing, unknown, of another type or length), INVALID_ARGUMENT (a
// scale that is NaN or infinite), UNIMPLEMENTED (forms that we do not have, by name).
absl::StatusOr<TensorRef> ReadQuantizedMatrix(std::string name, const StoredTensor& matrix,
                                              const Companions& companions);

}  // namespace nibble
