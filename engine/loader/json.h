// JSON text to a Value, strictly: RFC 8259, valid UTF-8, no duplicate keys, bounded depth and
// count. Integers past 64 bits become doubles, as tokenizer_config.json's model_max_length needs.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/loader/value.h"

namespace nibble {

// file: the base name, for messages. Errors: DATA_LOSS.
absl::StatusOr<Value> ParseJson(std::string_view file, std::string_view text);

// As ParseJson, and the document is an object.
absl::StatusOr<Value> ParseJsonObject(std::string_view file, std::string_view text);

// Only the top-level object's member `key`: null when absent. What follows it is not checked, so
// this costs little on a long file.
absl::StatusOr<Value> ParseJsonMember(std::string_view file, std::string_view text,
                                      std::string_view key);

}  // namespace nibble
