// The values of a template: plain, immutable (namespaces excepted) and bounded in depth, as in the
// sandbox that Hugging Face renders with. Python's truth, equality, repr and JSON.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/tokenizer/jinja_text.h"

namespace nibble::jinja {

class Value;
struct Macro;
struct Namespace;
class Budget;

using TextPtr = std::shared_ptr<const Text>;

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int32_t depth = 1;  // 1 + that of the deepest item
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion
  int32_t depth = 1;
};

// What `loop` is inside a for. Lives on after the loop only if a variable keeps it.
struct Loop {
  std::shared_ptr<const List> items;
  int64_t index0 = 0;
};

// jinja2's default Undefined: prints as nothing, is false and empty, and is an error to look into.
struct UndefinedName {
  const std::string* name = nullptr;  // for messages; part of the program, or null
};

enum class Function : uint8_t { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow, kMethod };

class Value {
 public:
  using Storage = std::variant<UndefinedName, std::nullptr_t, bool, int64_t, double, TextPtr,
                               std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace*,
                               std::shared_ptr<Loop>, const Macro*, Function>;

  Value() = default;
  template <typename T>
  explicit Value(T value) : storage_(std::move(value)) {}
  static Value None() { return Value(nullptr); }
  static Value Undefined(const std::string* name) { return Value(UndefinedName{name}); }
  static Value Of(std::string text) { return Value(std::make_shared<const Text>(std::move(text))); }

  bool IsUndefined() const { return std::holds_alternative<UndefinedName>(storage_); }
  bool IsNone() const { return std::holds_alternative<std::nullptr_t>(storage_); }
  bool IsAbsent() const { return IsUndefined() || IsNone(); }
  bool IsNumber() const;   // bool, int or float
  bool IsInteger() const;  // bool or int
  const bool* AsBool() const { return std::get_if<bool>(&storage_); }
  const Text* AsText() const;
  const List* AsList() const;
  const Dict* AsDict() const;
  Namespace* AsNamespace() const;
  Loop* AsLoop() const;
  std::shared_ptr<const List> SharedList() const;
  const Storage& storage() const { return storage_; }

  int64_t ToInteger() const;  // of a bool or an int
  double ToDouble() const;    // of a number
  bool Truth() const;
  int32_t Depth() const;         // 0 for a scalar
  const char* TypeName() const;  // as Python spells it: "str", "dict"

 private:
  Storage storage_;
};

// namespace(): the only thing that changes. The interpreter owns all of them, so a cycle through
// one leaks nothing.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

// Python's ==. Work is charged to the budget.
bool Equal(const Value& a, const Value& b, Budget* budget);
const Value* FindKey(const Dict& dict, const Value& key, Budget* budget);
const Value* FindKey(const Dict& dict, std::string_view key, Budget* budget);

std::string FormatDouble(double value);  // Python's repr
// Python's str(value), appended.
void Print(const Value& value, Budget* budget, Text* out);
// Python's repr(value), appended.
void Repr(const Value& value, Budget* budget, Text* out);

struct JsonStyle {
  int64_t indent = -1;  // spaces a level; negative: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ensure_ascii = false;
};
// json.dumps(value), appended. Errors go to the budget.
void WriteJson(const Value& value, const JsonStyle& style, int level, Budget* budget, Text* out);

}  // namespace nibble::jinja
