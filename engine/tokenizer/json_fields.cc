// Every read of a field ends in simdjson's typed get, whose refusal becomes the error.
#include "engine/tokenizer/json_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/status.h"

namespace nibble {

JsonFields::JsonFields(std::string file, std::string path, simdjson::dom::element element)
    : file_(std::move(file)), path_(std::move(path)) {
  if (element.get(object_) != simdjson::SUCCESS) {
    Fail(CorruptFile(file_, absl::StrCat(path_.empty() ? "the document" : path_, " is no object")));
  }
}

std::string JsonFields::PathOf(std::string_view key) const {
  return path_.empty() ? std::string(key) : absl::StrCat(path_, ".", Str(key));
}

JsonFields::JsonFields(std::string file, std::string path, absl::Status status)
    : file_(std::move(file)), path_(std::move(path)), status_(std::move(status)) {}

void JsonFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void JsonFields::FailAt(std::string_view key, std::string_view what) {
  Fail(CorruptFile(file_, absl::StrCat(PathOf(key), " ", Str(what))));
}

std::optional<simdjson::dom::element> JsonFields::Find(std::string_view key) const {
  simdjson::dom::element element;
  if (!status_.ok() || object_.at_key(key).get(element) != simdjson::SUCCESS) return std::nullopt;
  if (element.is_null()) return std::nullopt;
  return element;
}

std::optional<simdjson::dom::element> JsonFields::Need(std::string_view key) {
  const auto element = Find(key);
  if (!element.has_value()) FailAt(key, "is missing");
  return element;
}

std::optional<std::string> JsonFields::TextOrNull(std::string_view key) {
  const auto element = Find(key);
  if (!element.has_value()) return std::nullopt;
  std::string_view text;
  if (element->get(text) != simdjson::SUCCESS) FailAt(key, "is no string");
  return std::string(text);
}

std::string JsonFields::Text(std::string_view key) {
  return Need(key).has_value() ? TextOrNull(key).value_or("") : "";
}

bool JsonFields::BoolOr(std::string_view key, bool fallback) {
  const auto element = Find(key);
  if (!element.has_value()) return fallback;
  bool value = fallback;
  if (element->get(value) != simdjson::SUCCESS) FailAt(key, "is neither true nor false");
  return value;
}

bool JsonFields::Bool(std::string_view key) { return Need(key).has_value() && BoolOr(key, false); }

int64_t JsonFields::IntOr(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  const auto element = Find(key);
  if (!element.has_value()) return fallback;
  int64_t value = fallback;
  if (element->get(value) != simdjson::SUCCESS || value < min || value > max) {
    FailAt(key, absl::StrCat("is no whole number in ", min, "…", max));
    return fallback;
  }
  return value;
}

int64_t JsonFields::Int(std::string_view key, int64_t min, int64_t max) {
  return Need(key).has_value() ? IntOr(key, min, min, max) : min;
}

std::optional<simdjson::dom::array> JsonFields::Array(std::string_view key) {
  const auto element = Need(key);
  if (!element.has_value()) return std::nullopt;
  simdjson::dom::array array;
  if (element->get(array) == simdjson::SUCCESS) return array;
  FailAt(key, "is no array");
  return std::nullopt;
}

std::optional<simdjson::dom::object> JsonFields::Object(std::string_view key) {
  const auto element = Need(key);
  if (!element.has_value()) return std::nullopt;
  simdjson::dom::object object;
  if (element->get(object) == simdjson::SUCCESS) return object;
  FailAt(key, "is no object");
  return std::nullopt;
}

std::vector<simdjson::dom::element> JsonFields::Elements(std::string_view key) {
  std::vector<simdjson::dom::element> elements;
  const auto array = Array(key);
  if (!array.has_value()) return elements;
  for (const simdjson::dom::element element : *array) elements.push_back(element);
  return elements;
}

JsonFields JsonFields::Child(std::string_view key) {
  const auto element = Need(key);
  if (!element.has_value()) return JsonFields(file_, PathOf(key), status_);
  return JsonFields(file_, PathOf(key), *element);
}

}  // namespace nibble
