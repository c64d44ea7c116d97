// Python's operators, subscripts and iteration on the values of a template. Errors go to the
// budget; the result is then undefined, false or empty.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "engine/tokenizer/jinja_budget.h"
#include "engine/tokenizer/jinja_expression.h"
#include "engine/tokenizer/jinja_value.h"

namespace nibble::jinja {

Value Apply(Operator op, const Value& left, const Value& right, Budget* budget);
Value Negate(const Value& value, Budget* budget);
bool Compare(Comparator comparator, const Value& left, const Value& right, Budget* budget);
// left < right, of two numbers or two strings.
bool Less(const Value& left, const Value& right, Budget* budget);
bool Contains(const Value& container, const Value& item, Budget* budget);

// What a for walks over: a list's items, a dict's keys, a string's characters, nothing of
// undefined.
std::shared_ptr<const List> Items(const Value& value, Budget* budget);
std::optional<int64_t> Length(const Value& value);  // of what has one

// value.name: undefined when there is none, an error when value is.
Value GetAttribute(const Value& value, NameRef name, Budget* budget);
// value[key]: the item, else the attribute, else undefined.
Value GetItem(const Value& value, const Value& key, Budget* budget);
// value[start:stop:step] of a string or a list; undefined and none are absent.
Value GetSlice(const Value& value, const Value& start, const Value& stop, const Value& step,
               Budget* budget);
// "'x' is undefined", for whoever needs a value.
Value UndefinedError(const Value& value, Budget* budget);

}  // namespace nibble::jinja
