// What bitsandbytes writes beside a 4-bit matrix as the tensor "….quant_state.bitsandbytes__nf4":
//
//   state  := {"quant_type": "nf4" | "fp4", "blocksize": integer, "dtype": string,
//              "shape": [N, K] nested?}        UTF-8 JSON; keys in any order, at most 4096 bytes
//   nested := , "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": number
//
// Knows this text, no tensor. Source: bitsandbytes, QuantState.as_dict.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "kernels/tensor.h"

namespace nibble {

struct QuantState {
  TensorType type = TensorType::kNF4;  // or kFP4
  int32_t group_size = 64;
  DType source_dtype = DType::kF16;
  int64_t rows = 0;
  int64_t cols = 0;  // rows · cols fits in 60 bits
  bool nested = false;
  float nested_offset = 0;
};

// place: file and tensor, for messages. type_name: how the tensor's own name ends, "nf4" or "fp4".
// Errors: DATA_LOSS (broken JSON; a field missing, unknown or out of range), UNIMPLEMENTED (dtypes
// and nested forms that bitsandbytes never wrote, by name), INVALID_ARGUMENT (an offset past fp32).
absl::StatusOr<QuantState> ParseQuantState(std::string_view place, std::string_view type_name,
                                           std::string_view text);

}  // namespace nibble
