// A value out of a model's configuration: JSON's kinds, which GGUF's metadata fits too, and a
// reader of an object's fields that checks kind and range. Knows no file format and no field's
// meaning.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace nibble {

class Value {
 public:
  struct Member;
  using Array = std::vector<Value>;
  using Object = std::vector<Member>;  // in file order; keys are distinct

  // Out of line, where Member is complete.
  Value();  // null
  explicit Value(bool value);
  explicit Value(int64_t value);
  explicit Value(double value);
  explicit Value(std::string value);
  explicit Value(Array value);
  explicit Value(Object value);
  ~Value();
  Value(const Value& other);
  Value(Value&& other) noexcept;
  Value& operator=(const Value& other);
  Value& operator=(Value&& other) noexcept;

  bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  // Null pointers when the value is of another kind.
  const bool* AsBool() const { return std::get_if<bool>(&data_); }
  const int64_t* AsInt() const { return std::get_if<int64_t>(&data_); }
  const double* AsDouble() const { return std::get_if<double>(&data_); }
  const std::string* AsText() const { return std::get_if<std::string>(&data_); }
  const Array* AsArray() const { return std::get_if<Array>(&data_); }
  const Object* AsObject() const { return std::get_if<Object>(&data_); }

  // The object's member of this name; null if there is none, it is null, or this is no object.
  const Value* Find(std::string_view key) const;
  // For messages: a number or a short text as it is, else the kind ("an array").
  std::string Describe() const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> data_;
};

struct Value::Member {
  std::string key;
  Value value;
};

// Reads an object's fields one after another and remembers the first error, so that the caller
// reads like the list of fields and checks status() once. A field that is null counts as absent.
// Errors are DATA_LOSS with place, field, got and wanted; after one, reads return the fallback.
class Fields {
 public:
  // where: the file's base name, or that and the path to this object ("config.json: rope_scaling").
  // `object` must outlive this.
  Fields(std::string where, const Value& object) : where_(std::move(where)), object_(&object) {}

  bool Has(std::string_view key) const { return object_->Find(key) != nullptr; }
  int64_t Int(std::string_view key, int64_t min, int64_t max);  // must be there
  int64_t IntOr(std::string_view key, int64_t fallback, int64_t min, int64_t max);
  double Number(std::string_view key, double min, double max);
  double NumberOr(std::string_view key, double fallback, double min, double max);
  bool BoolOr(std::string_view key, bool fallback);
  std::string Text(std::string_view key);
  std::string TextOr(std::string_view key, std::string_view fallback);
  // Null when absent or not of this kind (which is an error).
  const Value::Array* ArrayOrNull(std::string_view key);
  const Value* ObjectOrNull(std::string_view key);

  // Adds an error of the caller's unless there is one.
  void Fail(absl::Status status);
  const absl::Status& status() const { return status_; }
  const std::string& where() const { return where_; }

 private:
  const Value* Need(std::string_view key);
  void FailKind(std::string_view key, const Value& got, std::string_view wanted);

  std::string where_;
  const Value* object_;
  absl::Status status_;
};

}  // namespace nibble
