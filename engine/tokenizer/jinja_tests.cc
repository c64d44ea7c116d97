// `x is …`.
#include <map>

#include "engine/tokenizer/jinja_calls.h"
#include "engine/tokenizer/jinja_operators.h"

namespace nibble::jinja {
namespace {

// Tests of the value alone.
template <bool (*kIs)(const Value&)>
bool Is(const Value& value, const Arguments&, Budget*) {
  return kIs(value);
}

bool IsTrue(const Value& v) { return v.AsBool() != nullptr && *v.AsBool(); }
bool IsFalse(const Value& v) { return v.AsBool() != nullptr && !*v.AsBool(); }
bool IsDefined(const Value& v) { return !v.IsUndefined(); }
bool IsInt(const Value& v) { return v.IsInteger() && v.AsBool() == nullptr; }
bool IsFloat(const Value& v) { return v.IsNumber() && !v.IsInteger(); }
bool IsText(const Value& v) { return v.AsText() != nullptr; }
bool IsMapping(const Value& v) { return v.AsDict() != nullptr; }
bool IsIterable(const Value& v) {
  return v.AsText() || v.AsList() || v.AsDict() || v.IsUndefined() || v.AsLoop();
}
// Undefined has a length and takes subscripts, so Python's protocol test says yes.
bool IsSequence(const Value& v) {
  return v.AsText() || v.AsList() || v.AsDict() || v.IsUndefined();
}
bool IsCallable(const Value& v) {
  return std::holds_alternative<Function>(v.storage()) ||
         std::holds_alternative<const Macro*>(v.storage()) || v.IsUndefined();
}

// Tests against one argument.
template <Comparator kComparator>
bool Compares(const Value& value, const Arguments& arguments, Budget* budget) {
  const auto [other] = Bind(arguments, {"other"}, "a comparing test", budget);
  return Compare(kComparator, value, other, budget);
}

// value % divisor == rest.
bool Divides(const Value& value, const Value& divisor, int64_t rest, Budget* budget) {
  const Value modulo = Apply(Operator::kMod, value, divisor, budget);
  return modulo.IsNumber() && modulo.ToDouble() == static_cast<double>(rest);
}

template <int64_t kRest>
bool IsParity(const Value& value, const Arguments&, Budget* budget) {
  return Divides(value, Value(int64_t{2}), kRest, budget);
}

bool IsDivisibleBy(const Value& value, const Arguments& arguments, Budget* budget) {
  const auto [divisor] = Bind(arguments, {"num"}, "divisibleby", budget);
  return Divides(value, divisor, 0, budget);
}

bool IsSameAs(const Value& value, const Arguments& arguments, Budget* budget) {
  const auto [other] = Bind(arguments, {"other"}, "sameas", budget);
  return value.storage().index() == other.storage().index() && Equal(value, other, budget);
}

template <bool kUpper>
bool HasCase(const Value& value, const Arguments&, Budget* budget) {
  if (!IsText(value)) return false;
  return CallMethod(value, kUpper ? "isupper" : "islower", {}, budget).Truth();
}

}  // namespace

Test FindTest(std::string_view name) {
  static const std::map<std::string_view, Test> tests = {
      {"defined", Is<IsDefined>},
      {"undefined", [](const Value& v, const Arguments&, Budget*) { return v.IsUndefined(); }},
      {"none", [](const Value& v, const Arguments&, Budget*) { return v.IsNone(); }},
      {"true", Is<IsTrue>},
      {"false", Is<IsFalse>},
      {"boolean", [](const Value& v, const Arguments&, Budget*) { return v.AsBool() != nullptr; }},
      {"integer", Is<IsInt>},
      {"float", Is<IsFloat>},
      {"number", [](const Value& v, const Arguments&, Budget*) { return v.IsNumber(); }},
      {"string", Is<IsText>},
      {"mapping", Is<IsMapping>},
      {"iterable", Is<IsIterable>},
      {"sequence", Is<IsSequence>},
      {"callable", Is<IsCallable>},
      {"eq", Compares<Comparator::kEq>},
      {"equalto", Compares<Comparator::kEq>},
      {"==", Compares<Comparator::kEq>},
      {"ne", Compares<Comparator::kNe>},
      {"!=", Compares<Comparator::kNe>},
      {"lt", Compares<Comparator::kLt>},
      {"lessthan", Compares<Comparator::kLt>},
      {"<", Compares<Comparator::kLt>},
      {"le", Compares<Comparator::kLe>},
      {"<=", Compares<Comparator::kLe>},
      {"gt", Compares<Comparator::kGt>},
      {"greaterthan", Compares<Comparator::kGt>},
      {">", Compares<Comparator::kGt>},
      {"ge", Compares<Comparator::kGe>},
      {">=", Compares<Comparator::kGe>},
      {"in", Compares<Comparator::kIn>},
      {"even", IsParity<0>},
      {"odd", IsParity<1>},
      {"divisibleby", IsDivisibleBy},
      {"sameas", IsSameAs},
      {"upper", HasCase<true>},
      {"lower", HasCase<false>},
  };
  const auto found = tests.find(name);
  return found == tests.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
