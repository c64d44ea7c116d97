// See hugging_face_json.h. Text is escaped only where JSON asks for it (RFC 8259, §7).
#include "engine/quantize/hugging_face_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"

namespace nibble::json {
namespace {

constexpr size_t kNumberBytes = 64;  // the longest is a sign, 17 digits and an exponent

void AppendEscaped(char byte, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (byte) {
    case '"':
    case '\\':
      out->push_back('\\');
      out->push_back(byte);
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\r':
      out->append("\\r");
      return;
    case '\t':
      out->append("\\t");
      return;
    default:
      out->append("\\u00");
      out->push_back(kHex[byte >> 4]);
      out->push_back(kHex[byte & 15]);
  }
}

void AppendText(std::string_view text, std::string* out) {
  out->push_back('"');
  for (const char byte : text) {
    const bool plain = static_cast<uint8_t>(byte) >= 0x20 && byte != '"' && byte != '\\';
    plain ? out->push_back(byte) : AppendEscaped(byte, out);
  }
  out->push_back('"');
}

// Always with a point or an exponent, so that it reads back as no integer; with an exponent where
// Python's repr has one.
void AppendDouble(double number, std::string* out) {
  const double magnitude = std::abs(number);
  const bool plain = number == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  char digits[kNumberBytes];
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const std::to_chars_result end = std::to_chars(digits, digits + kNumberBytes, number, format);
  const std::string_view text(digits, static_cast<size_t>(end.ptr - digits));
  out->append(text);
  if (text.find_first_of(".e") == std::string_view::npos) out->append(".0");
}

void Append(const Value& value, int depth, std::string* out);

void NewLine(int depth, std::string* out) {
  out->push_back('\n');
  out->append(2 * static_cast<size_t>(depth), ' ');
}

void AppendObject(const Value::Object& members, int depth, std::string* out) {
  out->push_back('{');
  for (size_t i = 0; i < members.size(); ++i) {
    if (i > 0) out->push_back(',');
    NewLine(depth + 1, out);
    AppendText(members[i].key, out);
    out->append(": ");
    Append(members[i].value, depth + 1, out);
  }
  if (!members.empty()) NewLine(depth, out);
  out->push_back('}');
}

bool IsPlain(const Value& value) {
  return value.AsArray() == nullptr && value.AsObject() == nullptr;
}

void AppendArray(const Value::Array& elements, int depth, std::string* out) {
  const bool one_line = std::all_of(elements.begin(), elements.end(), IsPlain);
  out->push_back('[');
  for (size_t i = 0; i < elements.size(); ++i) {
    if (i > 0) out->append(one_line ? ", " : ",");
    if (!one_line) NewLine(depth + 1, out);
    Append(elements[i], depth + 1, out);
  }
  if (!one_line) NewLine(depth, out);
  out->push_back(']');
}

void Append(const Value& value, int depth, std::string* out) {
  if (value.AsObject() != nullptr) {
    AppendObject(*value.AsObject(), depth, out);
  } else if (value.AsArray() != nullptr) {
    AppendArray(*value.AsArray(), depth, out);
  } else if (value.AsText() != nullptr) {
    AppendText(*value.AsText(), out);
  } else if (value.AsDouble() != nullptr) {
    AppendDouble(*value.AsDouble(), out);
  } else if (value.AsInt() != nullptr) {
    absl::StrAppend(out, *value.AsInt());
  } else if (value.AsBool() != nullptr) {
    out->append(*value.AsBool() ? "true" : "false");
  } else {
    out->append("null");
  }
}

}  // namespace

Value Null() { return Value(); }
Value Flag(bool flag) { return Value(flag); }
Value Integer(int64_t number) { return Value(number); }
Value Text(std::string_view text) { return Value(std::string(text)); }
Value Array(Value::Array elements) { return Value(std::move(elements)); }
Value Object(Value::Object members) { return Value(std::move(members)); }

Value Decimal(float number) {
  Check(std::isfinite(number), "a number in JSON is finite");
  char digits[kNumberBytes];
  const char* end = std::to_chars(digits, digits + kNumberBytes, number).ptr;
  double decimal = 0;
  std::from_chars(digits, end, decimal);
  return Value(decimal);
}

std::string Write(const Value& value) {
  std::string text;
  Append(value, 0, &text);
  text.push_back('\n');
  return text;
}

}  // namespace nibble::json
