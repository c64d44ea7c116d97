// Tokens to a Program: jinja2's grammar for the statements that chat templates use.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/tokenizer/jinja_program.h"

namespace nibble::jinja {

// Errors: INVALID_ARGUMENT with line and column; UNIMPLEMENTED for a statement we do not have, by
// name; RESOURCE_EXHAUSTED when expressions or blocks nest deeper than max_depth. Filters and tests
// are looked up when they run: a branch that never runs may name any.
absl::StatusOr<Program> ParseProgram(std::string_view source, int32_t max_depth);

}  // namespace nibble::jinja
