// Expressions.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/jinja_interpreter.h"
#include "engine/tokenizer/jinja_operators.h"

namespace nibble::jinja {
namespace {

template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <typename... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

}  // namespace

Value Interpreter::Evaluate(const Expression& expression, Scope* scope) {
  Value value;
  if (budget_->Enter() && budget_->Charge(1)) {
    budget_->set_line(expression.line);
    value = std::visit([&](const auto& node) { return Eval(node, scope); }, expression.node);
  }
  budget_->Leave();
  return value;
}

Value Interpreter::EvaluateOptional(const ExpressionPtr& expression, Scope* scope) {
  return expression == nullptr ? Value() : Evaluate(*expression, scope);
}

Value Interpreter::Eval(const Constant& node, Scope*) { return node.value; }

Value Interpreter::Eval(const Name& node, Scope* scope) {
  for (const Scope* at = scope; at != nullptr && budget_->Charge(1); at = at->parent) {
    const auto found = at->variables.find(node.name);
    if (found != at->variables.end()) return found->second;
  }
  return Value::Undefined(node.name);
}

Value Interpreter::Eval(const Sequence& node, Scope* scope) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : node.items) {
    items.push_back(Evaluate(*item, scope));
    if (!budget_->ok()) return Value();
  }
  return budget_->Make(std::move(items), node.is_tuple);
}

Value Interpreter::Eval(const DictLiteral& node, Scope* scope) {
  Dict dict;
  for (const auto& [key_node, value_node] : node.entries) {
    const Value key = Evaluate(*key_node, scope);
    Value value = Evaluate(*value_node, scope);
    if (key.AsDict() != nullptr || (key.AsList() != nullptr && !key.AsList()->is_tuple)) {
      return budget_->TypeError(absl::StrCat("a ", key.TypeName(), " cannot be a key"));
    }
    const auto known =
        std::find_if(dict.entries.begin(), dict.entries.end(),
                     [&](const auto& entry) { return Equal(entry.first, key, budget_); });
    if (!budget_->ok()) return Value();
    if (known == dict.entries.end()) {
      dict.entries.emplace_back(key, std::move(value));
    } else {
      known->second = std::move(value);
    }
  }
  return budget_->Make(std::move(dict.entries));
}

// A sum of strings is built in one text, not in one per operator.
Value Interpreter::Eval(const Arithmetic& node, Scope* scope) {
  Value left = Evaluate(*node.first, scope);
  Text sum;
  bool summing = false;  // `sum` stands for `left`
  for (const auto& [op, operand] : node.rest) {
    const Value right = Evaluate(*operand, scope);
    if (!budget_->ok()) return Value();
    const bool texts = right.AsText() != nullptr && (summing || left.AsText() != nullptr);
    if (op == Operator::kConcat || (op == Operator::kAdd && texts)) {
      if (!std::exchange(summing, true)) Print(left, budget_, &sum);
      Print(right, budget_, &sum);
      continue;
    }
    if (std::exchange(summing, false)) left = budget_->Make(std::exchange(sum, Text()));
    left = Apply(op, left, right, budget_);
  }
  return summing ? budget_->Make(std::move(sum)) : left;
}

Value Interpreter::Eval(const Comparison& node, Scope* scope) {
  Value left = Evaluate(*node.first, scope);
  for (const auto& [comparator, operand] : node.rest) {
    Value right = Evaluate(*operand, scope);
    if (!budget_->ok()) return Value();
    if (!Compare(comparator, left, right, budget_)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::Eval(const Logical& node, Scope* scope) {
  Value value;
  for (const ExpressionPtr& operand : node.operands) {
    value = Evaluate(*operand, scope);
    if (value.Truth() == node.is_or || !budget_->ok()) break;
  }
  return value;
}

Value Interpreter::Eval(const Unary& node, Scope* scope) {
  const Value value = Evaluate(*node.operand, scope);
  if (node.op == UnaryOperator::kNot) return Value(!value.Truth());
  if (node.op == UnaryOperator::kMinus) return Negate(value, budget_);
  if (value.AsBool() != nullptr) return Value(value.ToInteger());
  if (value.IsNumber() || !budget_->ok()) return value;
  return budget_->TypeError(absl::StrCat("bad operand for unary +: ", value.TypeName()));
}

Value Interpreter::Eval(const Conditional& node, Scope* scope) {
  const bool holds = Evaluate(*node.test, scope).Truth();
  if (!budget_->ok()) return Value();
  return EvaluateOptional(holds ? node.then : node.otherwise, scope);
}

Value Interpreter::Eval(const Postfix& node, Scope* scope) {
  Value value = Evaluate(*node.base, scope);
  for (size_t i = 0; i < node.suffixes.size(); ++i) {
    if (!budget_->Charge(1)) return Value();
    const auto* attribute = std::get_if<Attribute>(&node.suffixes[i]);
    const bool is_last = i + 1 == node.suffixes.size();
    const auto* call = is_last ? nullptr : std::get_if<Call>(&node.suffixes[i + 1]);
    if (attribute != nullptr && call != nullptr && HasMethod(value, *attribute->name)) {
      const Arguments arguments = EvaluateArguments(call->arguments, scope);
      if (!budget_->ok()) return Value();
      value = CallMethod(value, *attribute->name, arguments, budget_);
      ++i;
    } else {
      value = ApplySuffix(value, node.suffixes[i], scope);
    }
  }
  return value;
}

Value Interpreter::ApplySuffix(const Value& value, const Suffix& suffix, Scope* scope) {
  if (!budget_->ok()) return Value();
  return std::visit(
      Overloaded{
          [&](const Attribute& node) { return GetAttribute(value, node.name, budget_); },
          [&](const Subscript& node) {
            return GetItem(value, Evaluate(*node.key, scope), budget_);
          },
          [&](const Slice& node) {
            const Value start = EvaluateOptional(node.start, scope);
            const Value stop = EvaluateOptional(node.stop, scope);
            const Value step = EvaluateOptional(node.step, scope);
            return budget_->ok() ? GetSlice(value, start, stop, step, budget_) : Value();
          },
          [&](const Call& node) {
            return CallValue(value, EvaluateArguments(node.arguments, scope));
          },
          [&](const FilterCall& node) { return ApplyFilter(value, node, scope); },
          [&](const TestCall& node) { return ApplyTest(value, node, scope); },
      },
      suffix);
}

Value Interpreter::ApplyFilter(const Value& value, const FilterCall& call, Scope* scope) {
  const Filter filter = FindFilter(*call.name);
  if (filter == nullptr) return budget_->Unsupported(absl::StrCat("the filter ", *call.name));
  const Arguments arguments = EvaluateArguments(call.arguments, scope);
  return budget_->ok() ? filter(value, arguments, budget_) : Value();
}

Value Interpreter::ApplyTest(const Value& value, const TestCall& call, Scope* scope) {
  const Test test = FindTest(*call.name);
  if (test == nullptr) return budget_->Unsupported(absl::StrCat("the test ", *call.name));
  const Arguments arguments = EvaluateArguments(call.arguments, scope);
  return budget_->ok() ? Value(test(value, arguments, budget_) != call.negated) : Value();
}

Arguments Interpreter::EvaluateArguments(const CallArguments& arguments, Scope* scope) {
  Arguments values;
  for (const ExpressionPtr& argument : arguments.positional) {
    values.positional.push_back(Evaluate(*argument, scope));
  }
  for (const auto& [name, argument] : arguments.named) {
    values.named.emplace_back(name, Evaluate(*argument, scope));
  }
  return values;
}

}  // namespace nibble::jinja
