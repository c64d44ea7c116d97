// Filters, tests and methods: what a template may call, by name. Tables of plain functions; errors
// go to the budget.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tokenizer/jinja_budget.h"
#include "engine/tokenizer/jinja_value.h"

namespace nibble::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

using Filter = Value (*)(const Value& input, const Arguments& arguments, Budget* budget);
using Test = bool (*)(const Value& input, const Arguments& arguments, Budget* budget);
using Method = Value (*)(const Value& self, const Arguments& arguments, Budget* budget);

// Null for a name we do not have.
Filter FindFilter(std::string_view name);
Test FindTest(std::string_view name);

bool HasMethod(const Value& self, std::string_view name);
// self.name(arguments), where HasMethod.
Value CallMethod(const Value& self, std::string_view name, const Arguments& arguments,
                 Budget* budget);

// Values for `names` in order, undefined where absent; too many or unknown ones are an error that
// begins with `callee`.
void BindTo(const Arguments& arguments, std::span<const std::string_view> names,
            std::string_view callee, Value* values, Budget* budget);

template <size_t N>
std::array<Value, N> Bind(const Arguments& arguments, const std::string_view (&names)[N],
                          std::string_view callee, Budget* budget) {
  std::array<Value, N> values;
  BindTo(arguments, names, callee, values.data(), budget);
  return values;
}

}  // namespace nibble::jinja
