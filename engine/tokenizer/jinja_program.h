// A parsed template as plain data: statements, and the names they use.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/tokenizer/jinja_expression.h"

namespace nibble::jinja {

struct Statement;
using Block = std::vector<Statement>;

// Where a value goes: one name, a tuple of names, or an attribute of a namespace.
struct Target {
  std::vector<NameRef> names;
  bool is_tuple = false;
  NameRef attribute = nullptr;
};

struct Data {
  TextPtr text;
};
struct Output {
  ExpressionPtr value;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;  // a null test: else
};
struct For {
  Target target;
  ExpressionPtr iterable;
  ExpressionPtr filter;  // null: none
  Block body;
  Block otherwise;
};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {
  Target target;
  std::vector<Suffix> filters;
  Block body;
};
struct FilterBlock {
  std::vector<Suffix> filters;
  Block body;
};
struct With {  // also {% generation %}, with no variables
  std::vector<std::pair<Target, ExpressionPtr>> variables;
  Block body;
};
struct Macro {
  NameRef name = nullptr;
  std::vector<std::pair<NameRef, ExpressionPtr>> parameters;  // with default, or null
  Block body;
};
struct MacroDefinition {
  std::unique_ptr<const Macro> macro;
};
struct Break {};
struct Continue {};

struct Statement {
  int32_t line = 0;
  std::variant<Data, Output, If, For, Set, SetBlock, FilterBlock, With, MacroDefinition, Break,
               Continue>
      node;
};

struct Program {
  std::set<std::string, std::less<>> names;
  Block body;
  int64_t memory_bytes = 0;  // heap held, within a few percent
};

}  // namespace nibble::jinja
