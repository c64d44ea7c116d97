// Statements and scopes.
#include "engine/tokenizer/jinja_interpreter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/jinja_operators.h"

namespace nibble::jinja {

Interpreter::Interpreter(const Program* program, absl::Time now, Budget* budget)
    : program_(program), now_(now), budget_(budget) {
  Define("range", Value(Function::kRange));
  Define("namespace", Value(Function::kNamespace));
  Define("dict", Value(Function::kDict));
  Define("raise_exception", Value(Function::kRaiseException));
  Define("strftime_now", Value(Function::kStrftimeNow));
}

void Interpreter::Define(std::string_view name, Value value) {
  const auto used = program_->names.find(name);
  if (used != program_->names.end()) root_.variables[&*used] = std::move(value);
}

Text Interpreter::Run() {
  Text out;
  RunBlock(program_->body, &root_, &out);
  return out;
}

Interpreter::Flow Interpreter::RunBlock(const Block& block, Scope* scope, Text* out) {
  Flow flow = Flow::kNext;
  if (budget_->Enter()) {
    for (const Statement& statement : block) {
      budget_->set_line(statement.line);
      if (flow != Flow::kNext || !budget_->Charge(1)) break;
      flow =
          std::visit([&](const auto& node) { return Execute(node, scope, out); }, statement.node);
    }
  }
  budget_->Leave();
  return flow;
}

Interpreter::Flow Interpreter::Execute(const Data& node, Scope*, Text* out) {
  Print(Value(node.text), budget_, out);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::Execute(const Output& node, Scope* scope, Text* out) {
  Print(Evaluate(*node.value, scope), budget_, out);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::Execute(const If& node, Scope* scope, Text* out) {
  for (const auto& [test, block] : node.branches) {
    const bool taken = test == nullptr || Evaluate(*test, scope).Truth();
    if (!budget_->ok()) return Flow::kNext;
    if (taken) return RunBlock(block, scope, out);
  }
  return Flow::kNext;
}

// What the for walks over, after its filter.
std::shared_ptr<const List> Interpreter::LoopItems(const For& node, Scope* scope) {
  std::shared_ptr<const List> all = Items(Evaluate(*node.iterable, scope), budget_);
  if (node.filter == nullptr) return all;
  std::vector<Value> kept;
  for (const Value& item : all->items) {
    Scope inner{scope, {}};
    Assign(node.target, item, &inner);
    const bool keep = Evaluate(*node.filter, &inner).Truth();
    if (!budget_->ok()) break;
    if (keep) kept.push_back(item);
  }
  auto list = budget_->Make(std::move(kept)).SharedList();
  return list != nullptr ? list : std::make_shared<const List>();
}

Interpreter::Flow Interpreter::Execute(const For& node, Scope* scope, Text* out) {
  const auto items = LoopItems(node, scope);
  if (!budget_->ok() || !budget_->CheckDepth(items->depth + 1)) return Flow::kNext;
  Scope inner{scope, {}};
  if (items->items.empty()) return RunBlock(node.otherwise, &inner, out);
  const auto loop_name = program_->names.find("loop");
  const auto loop = std::make_shared<Loop>();
  loop->items = items;
  for (; loop->index0 < static_cast<int64_t>(items->items.size()); ++loop->index0) {
    if (!budget_->Charge(1)) break;
    inner.variables.clear();
    if (loop_name != program_->names.end()) inner.variables[&*loop_name] = Value(loop);
    Assign(node.target, items->items[static_cast<size_t>(loop->index0)], &inner);
    if (RunBlock(node.body, &inner, out) == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::Execute(const Set& node, Scope* scope, Text*) {
  Assign(node.target, Evaluate(*node.value, scope), scope);
  return Flow::kNext;
}

Value Interpreter::Capture(const Block& block, const std::vector<Suffix>& filters, Scope* scope,
                           Flow* flow) {
  Scope inner{scope, {}};
  Text text;
  *flow = RunBlock(block, &inner, &text);
  Value value = budget_->Make(std::move(text));
  for (const Suffix& filter : filters) value = ApplySuffix(value, filter, scope);
  return value;
}

Interpreter::Flow Interpreter::Execute(const SetBlock& node, Scope* scope, Text*) {
  Flow flow = Flow::kNext;
  const Value value = Capture(node.body, node.filters, scope, &flow);
  if (flow == Flow::kNext) Assign(node.target, value, scope);
  return flow;
}

Interpreter::Flow Interpreter::Execute(const FilterBlock& node, Scope* scope, Text* out) {
  Flow flow = Flow::kNext;
  Print(Capture(node.body, node.filters, scope, &flow), budget_, out);
  return flow;
}

Interpreter::Flow Interpreter::Execute(const With& node, Scope* scope, Text* out) {
  Scope inner{scope, {}};
  for (const auto& [target, value] : node.variables) {
    Assign(target, Evaluate(*value, scope), &inner);
  }
  return RunBlock(node.body, &inner, out);
}

Interpreter::Flow Interpreter::Execute(const MacroDefinition& node, Scope* scope, Text*) {
  scope->variables[node.macro->name] = Value(node.macro.get());
  return Flow::kNext;
}

void Interpreter::Assign(const Target& target, const Value& value, Scope* scope) {
  if (!budget_->ok()) return;
  if (target.attribute != nullptr) return AssignAttribute(target, value, scope);
  if (!target.is_tuple) {
    scope->variables[target.names[0]] = value;
    return;
  }
  const auto items = Items(value, budget_);
  if (items->items.size() != target.names.size()) {
    budget_->TypeError(
        absl::StrCat(items->items.size(), " values for ", target.names.size(), " names"));
    return;
  }
  for (size_t i = 0; i < target.names.size(); ++i) {
    scope->variables[target.names[i]] = items->items[i];
  }
}

void Interpreter::AssignAttribute(const Target& target, const Value& value, Scope* scope) {
  Namespace* space = Eval(Name{target.names[0]}, scope).AsNamespace();
  if (space == nullptr) {
    budget_->TypeError(absl::StrCat("'", *target.names[0], "' is no namespace"));
    return;
  }
  if ((*target.attribute)[0] == '_') {
    budget_->TypeError("an attribute of a namespace may not begin with _");
    return;
  }
  auto& attributes = space->attributes;
  if (!budget_->Charge(1 + static_cast<int64_t>(attributes.size() / 8))) return;
  const auto found = std::find_if(attributes.begin(), attributes.end(), [&](const auto& entry) {
    return entry.first == *target.attribute;
  });
  if (found != attributes.end()) {
    found->second = value;
  } else {
    attributes.emplace_back(*target.attribute, value);
  }
}

}  // namespace nibble::jinja
