// A parsed expression as plain data. Chains of operators and suffixes are flat lists, so that the
// tree is no deeper than the parser's depth limit times the levels of precedence.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/tokenizer/jinja_value.h"

namespace nibble::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;
// A name of the program: its text lives in Program::names.
using NameRef = const std::string*;

struct Constant {
  Value value;
};
struct Name {
  NameRef name;
};
struct Sequence {
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
};
struct DictLiteral {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
enum class Operator : uint8_t { kAdd, kSub, kConcat, kMul, kDiv, kFloorDiv, kMod, kPow };
// first op₁ x₁ op₂ x₂ …, from the left.
struct Arithmetic {
  ExpressionPtr first;
  std::vector<std::pair<Operator, ExpressionPtr>> rest;
};
enum class Comparator : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };
// a < b < c holds if all neighbours do.
struct Comparison {
  ExpressionPtr first;
  std::vector<std::pair<Comparator, ExpressionPtr>> rest;
};
struct Logical {
  bool is_or = false;
  std::vector<ExpressionPtr> operands;
};
enum class UnaryOperator : uint8_t { kNot, kMinus, kPlus };
struct Unary {
  UnaryOperator op = UnaryOperator::kNot;
  ExpressionPtr operand;
};
struct Conditional {
  ExpressionPtr test;
  ExpressionPtr then;
  ExpressionPtr otherwise;  // null: undefined
};

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};
struct Attribute {
  NameRef name;
};
struct Subscript {
  ExpressionPtr key;
};
struct Slice {  // null: absent
  ExpressionPtr start;
  ExpressionPtr stop;
  ExpressionPtr step;
};
struct Call {
  CallArguments arguments;
};
struct FilterCall {
  NameRef name;
  CallArguments arguments;
};
struct TestCall {
  NameRef name;
  bool negated = false;
  CallArguments arguments;
};
using Suffix = std::variant<Attribute, Subscript, Slice, Call, FilterCall, TestCall>;
// base.a[b](c)|d is e, applied from the left.
struct Postfix {
  ExpressionPtr base;
  std::vector<Suffix> suffixes;
};

struct Expression {
  int32_t line = 0;
  std::variant<Constant, Name, Sequence, DictLiteral, Arithmetic, Comparison, Logical, Unary,
               Conditional, Postfix>
      node;
};

}  // namespace nibble::jinja
