// A safetensors file:
//
//   file   := header_bytes:u64le  header  data
//   header := '{' entries '}' ' '*            UTF-8 JSON, header_bytes bytes of it, at most 10^8
//   entry  := name ':' {"dtype": string, "shape": [integer…], "data_offsets": [begin, end]}
//           | "__metadata__" ':' {string: string…}
//   data   := the tensors' values, row-major and little-endian
//
// Offsets are relative to data. Ordered by them the tensors fill data exactly: no hole, no overlap,
// nothing left over. Nothing is aligned. Empty tensors and rank 0 are legal. Specification:
// huggingface/safetensors, README.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // "F32", "BF16", … as the file says; one that the format knows
  std::vector<int64_t> shape;
  std::span<const uint8_t> data;  // exactly the shape's values
};

// Every tensor of the file, in the order of their data. Views into `bytes`.
// Errors: DATA_LOSS, naming file, tensor, got and wanted.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(std::string_view file,
                                                               std::span<const uint8_t> bytes);

}  // namespace nibble
