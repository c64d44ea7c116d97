// Filters of one value. Where Python would take str(value) first, so do they.
#include "engine/tokenizer/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/jinja_operators.h"

namespace nibble::jinja {
namespace {

// str(value), as a value.
Value ToText(const Value& value, Budget* budget) {
  if (value.AsText() != nullptr) return value;
  Text text;
  Print(value, budget, &text);
  return budget->Make(std::move(text));
}

// str(value).method(arguments).
Value CallOnText(const Value& input, std::string_view method, const Arguments& arguments,
                 Budget* budget) {
  const Value text = ToText(input, budget);
  return budget->ok() ? CallMethod(text, method, arguments, budget) : Value();
}

Value TrimFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  return CallOnText(input, "strip", arguments, budget);
}
Value UpperFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  return CallOnText(input, "upper", arguments, budget);
}
Value LowerFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  return CallOnText(input, "lower", arguments, budget);
}
Value CapitalizeFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  return CallOnText(input, "capitalize", arguments, budget);
}

Value ReplaceFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  auto [from, to, count] = Bind(arguments, {"old", "new", "count"}, "replace", budget);
  return CallOnText(input, "replace",
                    {{ToText(from, budget), ToText(to, budget), std::move(count)}, {}}, budget);
}

Value StringFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  BindTo(arguments, {}, "string", nullptr, budget);
  return ToText(input, budget);
}

Value DefaultFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [other, boolean] = Bind(arguments, {"default_value", "boolean"}, "default", budget);
  if (!input.IsUndefined() && (!boolean.Truth() || input.Truth())) return input;
  return other.IsUndefined() ? Value::Of("") : other;
}

// Appends `text` indented by `indention`, the way of do_indent: empty lines stay empty.
void AppendIndented(const Text& text, const Value& indention, bool first, bool blank,
                    Budget* budget, Text* out) {
  Text ended = text;
  ended.Append("\n");  // so that a last line counts, even an empty one
  bool is_first = true;
  for (Text& line : SplitLines(ended, /*keep_ends=*/false)) {
    if (!is_first) out->Append("\n");
    if (is_first ? first : blank || !line.bytes().empty()) Print(indention, budget, out);
    is_first = false;
    Print(budget->Make(std::move(line)), budget, out);
    if (!budget->ok()) return;
  }
}

Value IndentFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  auto [width, first, blank] = Bind(arguments, {"width", "first", "blank"}, "indent", budget);
  const Value text = ToText(input, budget);
  if (width.IsUndefined()) width = Value(int64_t{4});
  if (width.IsInteger()) width = Apply(Operator::kMul, Value::Of(" "), width, budget);
  if (!budget->ok() || !budget->Charge(text.AsText()->Cost() / 2)) return Value();
  if (width.AsText() == nullptr) return budget->TypeError("indent: width is no int or str");
  Text result;
  AppendIndented(*text.AsText(), width, first.Truth(), blank.Truth(), budget, &result);
  return budget->Make(std::move(result));
}

// Python's int(text) in base 10, for what fits.
std::optional<int64_t> ParseInteger(const Text& text) {
  std::string digits = Strip(text, nullptr, Side::kBoth).bytes();
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  int64_t number = 0;
  if (!absl::SimpleAtoi(digits, &number)) return std::nullopt;
  return number;
}

std::optional<double> ParseDouble(const Value& value) {
  if (value.IsNumber()) return value.ToDouble();
  double number = 0;
  const Text* text = value.AsText();
  if (text == nullptr || !absl::SimpleAtod(text->bytes(), &number)) return std::nullopt;
  return number;
}

Value IntFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [other] = Bind(arguments, {"default"}, "int", budget);
  if (input.IsUndefined()) return UndefinedError(input, budget);
  if (input.IsInteger()) return Value(input.ToInteger());
  if (const Text* text = input.AsText()) {
    if (!budget->ChargeBytes(text->Cost())) return Value();
    if (const auto number = ParseInteger(*text)) return Value(*number);
  }
  const std::optional<double> number = ParseDouble(input);
  constexpr double kLimit = 9223372036854775808.0;
  if (number.has_value() && std::fabs(*number) < kLimit)
    return Value(static_cast<int64_t>(*number));
  return other.IsUndefined() ? Value(int64_t{0}) : other;
}

Value FloatFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [other] = Bind(arguments, {"default"}, "float", budget);
  if (input.IsUndefined()) return UndefinedError(input, budget);
  if (const std::optional<double> number = ParseDouble(input)) return Value(*number);
  return other.IsUndefined() ? Value(0.0) : other;
}

Value AbsFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  BindTo(arguments, {}, "abs", nullptr, budget);
  if (!input.IsNumber()) {
    return budget->TypeError(absl::StrCat("abs: got ", input.TypeName(), ", wanted a number"));
  }
  if (input.IsInteger() && input.ToInteger() >= 0) return Value(input.ToInteger());
  return input.ToDouble() < 0 ? Negate(input, budget) : input;
}

Value RoundFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [precision, method] = Bind(arguments, {"precision", "method"}, "round", budget);
  const int64_t digits = precision.IsInteger() ? precision.ToInteger() : 0;
  if (!input.IsNumber() || digits < 0 || digits > 15) {
    return budget->TypeError("round: wants a number and a precision of 0 to 15");
  }
  const std::string how = method.AsText() == nullptr ? "common" : method.AsText()->bytes();
  const double scale = std::pow(10.0, static_cast<double>(digits));
  if (how == "floor") return Value(std::floor(input.ToDouble() * scale) / scale);
  if (how == "ceil") return Value(std::ceil(input.ToDouble() * scale) / scale);
  if (how != "common") return budget->TypeError("round: method must be common, ceil or floor");
  if (input.IsInteger()) return input;
  // Rounds the exact binary value, ties to even, as Python does.
  char buffer[400];
  std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), input.ToDouble());
  return Value(std::strtod(buffer, nullptr));
}

// The two separators of tojson(separators=(item, key)).
bool ReadSeparators(const Value& value, JsonStyle* style) {
  const List* pair = value.AsList();
  if (pair == nullptr || pair->items.size() != 2) return false;
  for (size_t i = 0; i < 2; ++i) {
    const Text* text = pair->items[i].AsText();
    if (text == nullptr || text->bytes().size() > 16) return false;
    (i == 0 ? style->item_separator : style->key_separator) = text->bytes();
  }
  return true;
}

Value ToJsonFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [ensure_ascii, indent, separators, sort_keys] =
      Bind(arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}, "tojson", budget);
  JsonStyle style;
  style.ensure_ascii = ensure_ascii.Truth();
  style.sort_keys = sort_keys.Truth();
  if (!indent.IsAbsent()) {
    style.indent = indent.IsInteger() ? indent.ToInteger() : -1;
    style.item_separator.pop_back();  // as json.dumps, no space at the ends of lines
    if (style.indent < 0 || style.indent > 16) {
      return budget->TypeError("tojson: indent must be 0 to 16");
    }
  }
  if (!separators.IsAbsent() && !ReadSeparators(separators, &style)) {
    return budget->TypeError("tojson: separators must be two short strings");
  }
  Text text;
  WriteJson(input, style, 0, budget, &text);
  return budget->Make(std::move(text));
}

}  // namespace

const Filters& ScalarFilters() {
  static const Filters filters = {
      {"abs", AbsFilter},         {"capitalize", CapitalizeFilter}, {"d", DefaultFilter},
      {"default", DefaultFilter}, {"float", FloatFilter},           {"indent", IndentFilter},
      {"int", IntFilter},         {"lower", LowerFilter},           {"replace", ReplaceFilter},
      {"round", RoundFilter},     {"safe", StringFilter},  // nothing is escaped here
      {"string", StringFilter},   {"tojson", ToJsonFilter},         {"trim", TrimFilter},
      {"upper", UpperFilter},
  };
  return filters;
}

Filter FindFilter(std::string_view name) {
  for (const Filters* filters : {&ScalarFilters(), &CollectionFilters()}) {
    const auto found = filters->find(name);
    if (found != filters->end()) return found->second;
  }
  return nullptr;
}

}  // namespace nibble::jinja
