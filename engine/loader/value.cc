// See value.h.
#include "engine/loader/value.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/status.h"

namespace nibble {

Value::Value() = default;
Value::Value(bool value) : data_(value) {}
Value::Value(int64_t value) : data_(value) {}
Value::Value(double value) : data_(value) {}
Value::Value(std::string value) : data_(std::move(value)) {}
Value::Value(Array value) : data_(std::move(value)) {}
Value::Value(Object value) : data_(std::move(value)) {}
Value::~Value() = default;
Value::Value(const Value& other) = default;
Value::Value(Value&& other) noexcept = default;
Value& Value::operator=(const Value& other) = default;
Value& Value::operator=(Value&& other) noexcept = default;

const Value* Value::Find(std::string_view key) const {
  const Object* members = AsObject();
  if (members == nullptr) return nullptr;
  for (const Member& member : *members) {
    if (member.key == key) return member.value.is_null() ? nullptr : &member.value;
  }
  return nullptr;
}

std::string Value::Describe() const {
  if (is_null()) return "null";
  if (const bool* value = AsBool()) return *value ? "true" : "false";
  if (const int64_t* value = AsInt()) return absl::StrCat(*value);
  if (const double* value = AsDouble()) return absl::StrCat(*value);
  if (const std::string* value = AsText()) return Quoted(*value);
  return AsArray() != nullptr ? "an array" : "an object";
}

void Fields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void Fields::FailKind(std::string_view key, const Value& got, std::string_view wanted) {
  Fail(CorruptFile(where_,
                   absl::StrCat(Quoted(key), " is ", got.Describe(), ", wanted ", Str(wanted))));
}

const Value* Fields::Need(std::string_view key) {
  const Value* value = object_->Find(key);
  if (value == nullptr) Fail(CorruptFile(where_, absl::StrCat(Quoted(key), " is missing")));
  return value;
}

int64_t Fields::Int(std::string_view key, int64_t min, int64_t max) {
  return Need(key) == nullptr ? min : IntOr(key, min, min, max);
}

int64_t Fields::IntOr(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  const Value* value = object_->Find(key);
  if (value == nullptr) return fallback;
  const int64_t* number = value->AsInt();
  if (number != nullptr && *number >= min && *number <= max) return *number;
  FailKind(key, *value, absl::StrCat("an integer from ", min, " to ", max));
  return fallback;
}

double Fields::Number(std::string_view key, double min, double max) {
  return Need(key) == nullptr ? min : NumberOr(key, min, min, max);
}

double Fields::NumberOr(std::string_view key, double fallback, double min, double max) {
  const Value* value = object_->Find(key);
  if (value == nullptr) return fallback;
  const int64_t* whole = value->AsInt();
  const double* real = value->AsDouble();
  if (whole != nullptr || real != nullptr) {
    const double number = real != nullptr ? *real : static_cast<double>(*whole);
    if (number >= min && number <= max) return number;  // false for NaN
  }
  FailKind(key, *value, absl::StrCat("a number from ", min, " to ", max));
  return fallback;
}

bool Fields::BoolOr(std::string_view key, bool fallback) {
  const Value* value = object_->Find(key);
  if (value == nullptr) return fallback;
  if (const bool* flag = value->AsBool()) return *flag;
  FailKind(key, *value, "true or false");
  return fallback;
}

std::string Fields::Text(std::string_view key) {
  return Need(key) == nullptr ? std::string() : TextOr(key, "");
}

std::string Fields::TextOr(std::string_view key, std::string_view fallback) {
  const Value* value = object_->Find(key);
  if (value == nullptr) return Str(fallback);
  if (const std::string* text = value->AsText()) return *text;
  FailKind(key, *value, "a string");
  return Str(fallback);
}

const Value::Array* Fields::ArrayOrNull(std::string_view key) {
  const Value* value = object_->Find(key);
  if (value == nullptr) return nullptr;
  if (value->AsArray() == nullptr) FailKind(key, *value, "an array");
  return value->AsArray();
}

const Value* Fields::ObjectOrNull(std::string_view key) {
  const Value* value = object_->Find(key);
  if (value == nullptr || value->AsObject() != nullptr) return value;
  FailKind(key, *value, "an object");
  return nullptr;
}

}  // namespace nibble
