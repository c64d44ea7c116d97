// See json.h. simdjson finds the structure and validates UTF-8, numbers and strings; this file
// walks everything it finds and keeps what simdjson lets pass: duplicates, depth, trailing text.
#include "engine/loader/json.h"

#include <simdjson.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"

namespace nibble {
namespace {

using simdjson::error_code;
namespace ondemand = simdjson::ondemand;

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxValues = 4 << 20;  // some 200 MB of Values at the worst

class Builder {
 public:
  // Each returns false after setting the error.
  bool Build(ondemand::value source, int depth, Value* out);
  const std::string& error() const { return error_; }

 private:
  bool BuildArray(ondemand::value source, int depth, Value* out);
  bool BuildObject(ondemand::value source, int depth, Value* out);
  bool BuildNumber(ondemand::value source, Value* out);
  bool CheckDistinct(const Value::Object& members);
  bool Check(error_code code) {
    return code == simdjson::SUCCESS || Fail(simdjson::error_message(code));
  }
  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  std::string error_;
  int64_t num_values_ = 0;
};

bool Builder::Build(ondemand::value source, int depth, Value* out) {
  if (depth > kMaxDepth) return Fail(absl::StrCat("is nested deeper than ", kMaxDepth));
  if (++num_values_ > kMaxValues) return Fail(absl::StrCat("has over ", kMaxValues, " values"));
  ondemand::json_type type;
  if (!Check(source.type().get(type))) return false;
  switch (type) {
    case ondemand::json_type::array:
      return BuildArray(source, depth, out);
    case ondemand::json_type::object:
      return BuildObject(source, depth, out);
    case ondemand::json_type::number:
      return BuildNumber(source, out);
    case ondemand::json_type::string: {
      std::string_view text;
      if (!Check(source.get_string().get(text))) return false;
      *out = Value(std::string(text));
      return true;
    }
    case ondemand::json_type::boolean: {
      bool flag = false;
      if (!Check(source.get_bool().get(flag))) return false;
      *out = Value(flag);
      return true;
    }
    case ondemand::json_type::null: {
      bool null = false;
      if (!Check(source.is_null().get(null))) return false;
      *out = Value();
      return null || Fail("has an invalid literal");
    }
  }
  return Fail("has an unknown kind of value");
}

bool Builder::BuildNumber(ondemand::value source, Value* out) {
  int64_t whole = 0;
  if (source.get_int64().get(whole) == simdjson::SUCCESS) {
    *out = Value(whole);
    return true;
  }
  double real = 0;
  if (!Check(source.get_double().get(real))) return false;
  *out = Value(real);
  return true;
}

bool Builder::BuildArray(ondemand::value source, int depth, Value* out) {
  ondemand::array array;
  if (!Check(source.get_array().get(array))) return false;
  Value::Array values;
  for (auto item : array) {
    ondemand::value element;
    if (!Check(item.get(element))) return false;
    if (!Build(element, depth + 1, &values.emplace_back())) return false;
  }
  *out = Value(std::move(values));
  return true;
}

bool Builder::BuildObject(ondemand::value source, int depth, Value* out) {
  ondemand::object object;
  if (!Check(source.get_object().get(object))) return false;
  Value::Object members;
  for (auto item : object) {
    ondemand::field field;
    if (!Check(std::move(item).get(field))) return false;
    std::string_view key;
    if (!Check(field.unescaped_key().get(key))) return false;
    Value::Member& member = members.emplace_back();
    member.key = std::string(key);
    if (!Build(field.value(), depth + 1, &member.value)) return false;
  }
  if (!CheckDistinct(members)) return false;
  *out = Value(std::move(members));
  return true;
}

bool Builder::CheckDistinct(const Value::Object& members) {
  std::vector<std::string_view> keys;
  keys.reserve(members.size());
  for (const Value::Member& member : members) keys.push_back(member.key);
  std::sort(keys.begin(), keys.end());
  const auto twin = std::adjacent_find(keys.begin(), keys.end());
  return twin == keys.end() || Fail(absl::StrCat("has the key ", Quoted(*twin), " twice"));
}

absl::Status NotJson(std::string_view file, std::string_view why) {
  return CorruptFile(file, absl::StrCat("is not valid JSON: ", std::string(why)));
}

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view file, std::string_view text) {
  if (!simdjson::validate_utf8(text)) return NotJson(file, "it is not UTF-8");
  const simdjson::padded_string padded(text);
  ondemand::parser parser;
  ondemand::document document;
  error_code code = parser.iterate(padded).get(document);
  ondemand::value root;
  if (code == simdjson::SUCCESS) code = document.get_value().get(root);
  if (code != simdjson::SUCCESS) return NotJson(file, simdjson::error_message(code));
  Builder builder;
  Value value;
  if (!builder.Build(root, 0, &value)) return NotJson(file, builder.error());
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) {
    return NotJson(file, "text follows the value");
  }
  return value;
}

absl::StatusOr<Value> ParseJsonObject(std::string_view file, std::string_view text) {
  absl::StatusOr<Value> value = ParseJson(file, text);
  if (!value.ok() || value->AsObject() != nullptr) return value;
  return CorruptFile(file, absl::StrCat("is ", value->Describe(), ", wanted an object"));
}

absl::StatusOr<Value> ParseJsonMember(std::string_view file, std::string_view text,
                                      std::string_view key) {
  if (!simdjson::validate_utf8(text)) return NotJson(file, "it is not UTF-8");
  const simdjson::padded_string padded(text);
  ondemand::parser parser;
  ondemand::document document;
  error_code code = parser.iterate(padded).get(document);
  ondemand::object object;
  if (code == simdjson::SUCCESS) code = document.get_object().get(object);
  ondemand::value member;
  if (code == simdjson::SUCCESS) code = object.find_field_unordered(key).get(member);
  if (code == simdjson::NO_SUCH_FIELD) return Value();
  if (code != simdjson::SUCCESS) return NotJson(file, simdjson::error_message(code));
  Builder builder;
  Value value;
  if (!builder.Build(member, 0, &value)) return NotJson(file, builder.error());
  return value;
}

}  // namespace nibble
