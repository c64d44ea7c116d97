// A Value as JSON text, and short names to make one. Knows no file's fields.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/loader/value.h"

namespace nibble::json {

Value Null();
Value Flag(bool flag);
Value Integer(int64_t number);
// The shortest decimals that read back as this float: 1e-05 for 1e-5f, where the next double has 17
// digits. Must be finite.
Value Decimal(float number);
Value Text(std::string_view text);  // valid UTF-8
Value Array(Value::Array elements);
Value Object(Value::Object members);  // keys are distinct

// Ends in a newline. Members and elements stand on lines of their own, in their order; an array of
// plain values stands on one line. Equal values give equal bytes.
std::string Write(const Value& value);

}  // namespace nibble::json
