// Runs a Program once. Every step, byte and level of recursion is charged to the budget, which also
// carries the error.
#pragma once

#include <deque>
#include <map>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "engine/tokenizer/jinja_budget.h"
#include "engine/tokenizer/jinja_calls.h"
#include "engine/tokenizer/jinja_program.h"

namespace nibble::jinja {

class Interpreter {
 public:
  // All three must outlive it. `now` is what strftime_now says, in UTC.
  Interpreter(const Program* program, absl::Time now, Budget* budget);

  void Define(std::string_view name, Value value);
  // The rendered text; meaningless if the budget has an error then.
  Text Run();

 private:
  // Variables of a block; macros see the root's.
  struct Scope {
    Scope* parent = nullptr;
    std::map<NameRef, Value> variables;
  };
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  // --- statements ---
  Flow RunBlock(const Block& block, Scope* scope, Text* out);
  Flow Execute(const Data& node, Scope* scope, Text* out);
  Flow Execute(const Output& node, Scope* scope, Text* out);
  Flow Execute(const If& node, Scope* scope, Text* out);
  Flow Execute(const For& node, Scope* scope, Text* out);
  Flow Execute(const Set& node, Scope* scope, Text* out);
  Flow Execute(const SetBlock& node, Scope* scope, Text* out);
  Flow Execute(const FilterBlock& node, Scope* scope, Text* out);
  Flow Execute(const With& node, Scope* scope, Text* out);
  Flow Execute(const MacroDefinition& node, Scope* scope, Text* out);
  Flow Execute(const Break&, Scope*, Text*) { return Flow::kBreak; }
  Flow Execute(const Continue&, Scope*, Text*) { return Flow::kContinue; }
  // The block's output as a value, after its filters.
  Value Capture(const Block& block, const std::vector<Suffix>& filters, Scope* scope, Flow* flow);
  std::shared_ptr<const List> LoopItems(const For& node, Scope* scope);
  void Assign(const Target& target, const Value& value, Scope* scope);
  void AssignAttribute(const Target& target, const Value& value, Scope* scope);

  // --- expressions ---
  Value Evaluate(const Expression& expression, Scope* scope);
  Value EvaluateOptional(const ExpressionPtr& expression, Scope* scope);  // null: undefined
  Value Eval(const Constant& node, Scope* scope);
  Value Eval(const Name& node, Scope* scope);
  Value Eval(const Sequence& node, Scope* scope);
  Value Eval(const DictLiteral& node, Scope* scope);
  Value Eval(const Arithmetic& node, Scope* scope);
  Value Eval(const Comparison& node, Scope* scope);
  Value Eval(const Logical& node, Scope* scope);
  Value Eval(const Unary& node, Scope* scope);
  Value Eval(const Conditional& node, Scope* scope);
  Value Eval(const Postfix& node, Scope* scope);
  Value ApplySuffix(const Value& value, const Suffix& suffix, Scope* scope);
  Value ApplyFilter(const Value& value, const FilterCall& call, Scope* scope);
  Value ApplyTest(const Value& value, const TestCall& call, Scope* scope);
  Arguments EvaluateArguments(const CallArguments& arguments, Scope* scope);

  // --- calls ---
  Value CallValue(const Value& callee, const Arguments& arguments);
  Value CallMacro(const Macro& macro, const Arguments& arguments);
  Value CallFunction(Function function, const Arguments& arguments);
  Value CallRange(const Arguments& arguments);
  Value CallNamespace(const Arguments& arguments);
  Value CallDict(const Arguments& arguments);
  Value CallRaiseException(const Arguments& arguments);
  Value CallStrftimeNow(const Arguments& arguments);

  const Program* const program_;
  const absl::Time now_;
  Budget* const budget_;
  Scope root_;
  std::deque<Namespace> namespaces_;  // all that this run made
};

}  // namespace nibble::jinja
