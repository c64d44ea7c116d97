// Arithmetic and comparison: 64-bit integers that refuse to overflow, Python's floor division.
#include "engine/tokenizer/jinja_operators.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace nibble::jinja {
namespace {

Value Mismatch(const char* op, const Value& left, const Value& right, Budget* budget) {
  return budget->TypeError(absl::StrCat("unsupported operands for ", op, ": ", left.TypeName(),
                                        " and ", right.TypeName()));
}

Value Overflow(Budget* budget) { return budget->TypeError("an integer leaves 64 bits"); }

Value AddIntegers(Operator op, int64_t a, int64_t b, Budget* budget) {
  int64_t result = 0;
  const bool overflow = op == Operator::kAdd   ? __builtin_add_overflow(a, b, &result)
                        : op == Operator::kSub ? __builtin_sub_overflow(a, b, &result)
                                               : __builtin_mul_overflow(a, b, &result);
  return overflow ? Overflow(budget) : Value(result);
}

Value DivideIntegers(Operator op, int64_t a, int64_t b, Budget* budget) {
  if (b == -1) {  // the one division that overflows
    return op == Operator::kMod ? Value(int64_t{0}) : AddIntegers(Operator::kSub, 0, a, budget);
  }
  int64_t quotient = a / b;
  int64_t rest = a % b;
  if (rest != 0 && (rest < 0) != (b < 0)) {  // towards minus infinity, as Python
    --quotient;
    rest += b;
  }
  return Value(op == Operator::kMod ? rest : quotient);
}

Value PowIntegers(int64_t base, int64_t exponent, Budget* budget) {
  if (exponent < 0)
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      return Overflow(budget);
    }
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return Overflow(budget);
  }
  return Value(result);
}

Value ApplyIntegers(Operator op, int64_t a, int64_t b, Budget* budget) {
  switch (op) {
    case Operator::kDiv:
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDiv:
    case Operator::kMod:
      return DivideIntegers(op, a, b, budget);
    case Operator::kPow:
      return PowIntegers(a, b, budget);
    default:
      return AddIntegers(op, a, b, budget);
  }
}

Value ApplyDoubles(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSub:
      return Value(a - b);
    case Operator::kMul:
      return Value(a * b);
    case Operator::kDiv:
      return Value(a / b);
    case Operator::kFloorDiv:
      return Value(std::floor(a / b));
    case Operator::kMod: {
      const double rest = std::fmod(a, b);
      return Value(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
    }
    default:
      return Value(std::pow(a, b));
  }
}

Value ApplyNumbers(Operator op, const Value& left, const Value& right, Budget* budget) {
  const bool divides = op == Operator::kDiv || op == Operator::kFloorDiv || op == Operator::kMod;
  if (divides && right.ToDouble() == 0) return budget->TypeError("division by zero");
  if (left.IsInteger() && right.IsInteger()) {
    return ApplyIntegers(op, left.ToInteger(), right.ToInteger(), budget);
  }
  return ApplyDoubles(op, left.ToDouble(), right.ToDouble());
}

Value AddLists(const List& left, const List& right, Budget* budget) {
  if (left.is_tuple != right.is_tuple) {
    return budget->TypeError("a list and a tuple cannot be added");
  }
  if (!budget->Charge(static_cast<int64_t>(left.items.size() + right.items.size()))) return Value();
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return budget->Make(std::move(items), left.is_tuple);
}

Value AddTexts(const Text& left, const Text& right, Budget* budget) {
  if (!budget->Fits(static_cast<int64_t>(left.bytes().size() + right.bytes().size()))) return {};
  Text sum = left;
  sum.Append(right);
  return budget->Make(std::move(sum));
}

Value Repeat(const Value& value, int64_t times, Budget* budget) {
  if (const Text* text = value.AsText()) {
    Text result;
    if (text->bytes().empty() || times <= 0) return Value::Of("");
    if (!budget->Fits(text->Cost(), times) || !budget->ChargeBytes(text->Cost() * times)) return {};
    for (int64_t i = 0; i < times; ++i) result.Append(*text);
    return budget->Make(std::move(result));
  }
  const List& list = *value.AsList();
  std::vector<Value> items;
  for (int64_t i = 0; i < times; ++i) {
    if (!budget->Charge(1 + static_cast<int64_t>(list.items.size()))) break;
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return budget->Make(std::move(items), list.is_tuple);
}

Value Concatenate(const Value& left, const Value& right, Budget* budget) {
  Text text;
  Print(left, budget, &text);
  Print(right, budget, &text);
  return budget->Make(std::move(text));
}

const char* Symbol(Operator op) {
  static constexpr const char* kSymbols[] = {"+", "-", "~", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

}  // namespace

Value UndefinedError(const Value& value, Budget* budget) {
  const auto* undefined = std::get_if<UndefinedName>(&value.storage());
  const bool named = undefined != nullptr && undefined->name != nullptr;
  return budget->TypeError(named ? absl::StrCat("'", *undefined->name, "' is undefined")
                                 : "a value is undefined");
}

Value Apply(Operator op, const Value& left, const Value& right, Budget* budget) {
  if (op == Operator::kConcat) return Concatenate(left, right, budget);
  if (left.IsUndefined()) return UndefinedError(left, budget);
  if (right.IsUndefined()) return UndefinedError(right, budget);
  if (left.IsNumber() && right.IsNumber()) return ApplyNumbers(op, left, right, budget);
  const bool left_repeats = left.AsText() != nullptr || left.AsList() != nullptr;
  const bool right_repeats = right.AsText() != nullptr || right.AsList() != nullptr;
  if (op == Operator::kAdd) {
    if (left.AsText() && right.AsText()) return AddTexts(*left.AsText(), *right.AsText(), budget);
    if (left.AsList() && right.AsList()) return AddLists(*left.AsList(), *right.AsList(), budget);
  }
  if (op == Operator::kMul) {
    if (left_repeats && right.IsInteger()) return Repeat(left, right.ToInteger(), budget);
    if (left.IsInteger() && right_repeats) return Repeat(right, left.ToInteger(), budget);
  }
  if (op == Operator::kMod && left.AsText() != nullptr) {
    return budget->Unsupported("formatting a string with %");
  }
  return Mismatch(Symbol(op), left, right, budget);
}

Value Negate(const Value& value, Budget* budget) {
  if (value.IsUndefined()) return UndefinedError(value, budget);
  if (value.IsInteger()) return AddIntegers(Operator::kSub, 0, value.ToInteger(), budget);
  if (value.IsNumber()) return Value(-value.ToDouble());
  return budget->TypeError(absl::StrCat("bad operand for unary -: ", value.TypeName()));
}

bool Less(const Value& left, const Value& right, Budget* budget) {
  if (left.IsNumber() && right.IsNumber()) {
    if (left.IsInteger() && right.IsInteger()) return left.ToInteger() < right.ToInteger();
    return left.ToDouble() < right.ToDouble();
  }
  const Text* a = left.AsText();
  const Text* b = right.AsText();
  if (a != nullptr && b != nullptr) {  // bytes of UTF-8 are in the order of code points
    const size_t size = std::min(a->bytes().size(), b->bytes().size());
    return budget->ChargeScan(static_cast<int64_t>(size)) && a->bytes() < b->bytes();
  }
  if (left.IsUndefined() || right.IsUndefined()) {
    UndefinedError(left.IsUndefined() ? left : right, budget);
  } else {
    Mismatch("<", left, right, budget);
  }
  return false;
}

bool Compare(Comparator comparator, const Value& left, const Value& right, Budget* budget) {
  switch (comparator) {
    case Comparator::kEq:
      return Equal(left, right, budget);
    case Comparator::kNe:
      return !Equal(left, right, budget);
    case Comparator::kLt:
      return Less(left, right, budget);
    case Comparator::kGt:
      return Less(right, left, budget);
    case Comparator::kLe:  // not !Less(right, left): NaN
      return Less(left, right, budget) || Equal(left, right, budget);
    case Comparator::kGe:
      return Less(right, left, budget) || Equal(left, right, budget);
    case Comparator::kIn:
      return Contains(right, left, budget);
    case Comparator::kNotIn:
      return !Contains(right, left, budget);
  }
  return false;
}

bool Contains(const Value& container, const Value& item, Budget* budget) {
  if (const Text* text = container.AsText()) {
    const Text* part = item.AsText();
    if (part == nullptr) {
      budget->TypeError(absl::StrCat("'in <str>' needs a str, not ", item.TypeName()));
      return false;
    }
    return budget->ChargeScan(text->Cost() + part->Cost()) &&
           Searcher(part->bytes()).Find(text->bytes()) != std::string::npos;
  }
  if (const Dict* dict = container.AsDict()) return FindKey(*dict, item, budget) != nullptr;
  const auto list = Items(container, budget);
  for (const Value& other : list->items) {
    if (Equal(other, item, budget)) return true;
  }
  return false;
}

}  // namespace nibble::jinja
