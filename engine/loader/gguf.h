// A GGUF file, version 2 or 3, little-endian:
//
//   file    := "GGUF"  version:u32  tensor_count:u64  field_count:u64  field*  tensor*  pad  data
//   field   := key:string  type:u32  value         type 0…12, see gguf.cc; 9 is an array
//   array   := element_type:u32  count:u64  element*
//   string  := length:u64  byte*
//   tensor  := name:string  rank:u32  dimension:u64*  type:u32  offset:u64
//
// Dimensions are innermost first. data begins at the next multiple of the field general.alignment
// (32 if absent), offsets are relative to it and multiples of it too. A tensor's values are rows of
// whole blocks of its type. Specification: ggml-org/ggml, docs/gguf.md.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/value.h"

namespace nibble {

struct GgufArray {
  uint32_t element_type = 0;
  uint64_t count = 0;
  std::span<const uint8_t> bytes;  // of all elements; checked to hold exactly `count`
};

// A view of a parsed file; lives as long as its bytes.
struct GgufFile {
  std::string name;  // the file's base name
  Value fields;      // an object; arrays are empty here
  std::map<std::string, GgufArray, std::less<>> arrays;
  std::vector<TensorRef> tensors;  // GGUF's names; shapes outermost first

  // The array of this key; empty when there is none. Errors: DATA_LOSS for other elements.
  absl::StatusOr<std::vector<std::string>> Strings(std::string_view key) const;
  absl::StatusOr<std::vector<int32_t>> Ints(std::string_view key) const;
};

// Whether a file that begins so is meant to be GGUF.
bool HasGgufMagic(std::span<const uint8_t> bytes);

// Errors: INVALID_ARGUMENT (another magic), DATA_LOSS, UNIMPLEMENTED (another version, big-endian,
// nested arrays, a tensor type that we do not have, by name).
absl::StatusOr<GgufFile> ParseGguf(std::string_view file, std::span<const uint8_t> bytes);

}  // namespace nibble
