// Template source to tokens, whitespace control included (trim_blocks and lstrip_blocks are on, as
// Hugging Face sets them). Knows no grammar beyond brackets.
//
//   source  := (text | "{{" sign? inside sign? "}}" | "{%" sign? inside sign? "%}" newline?
//                    | "{#" … "#}" newline? | "{% raw %}" text "{% endraw %}")*
//   sign    := "-" strips all whitespace on its outer side, "+" keeps what lstrip would take
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nibble::jinja {

enum class TokenKind : uint8_t {
  kData,  // literal text
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,  // decoded
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int32_t line = 1;
  int32_t column = 1;  // in bytes
  std::string text;
};

// Errors: INVALID_ARGUMENT with line and column.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

absl::Status SyntaxError(int32_t line, int32_t column, std::string_view message);

}  // namespace nibble::jinja
