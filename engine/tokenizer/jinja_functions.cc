// What a template calls by name: its macros, and the functions that Hugging Face gives it.
#include <algorithm>
#include <utility>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "engine/tokenizer/jinja_interpreter.h"
#include "engine/tokenizer/jinja_operators.h"

namespace nibble::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as the sandbox of jinja2

// What came from a message is not repeated in an error: errors may be logged, prompts may not.
std::string WithoutContent(const Text& text) {
  std::string result;
  size_t begin = 0;
  for (const Text::Span& span : text.content()) {
    result.append(text.bytes(), begin, span.begin - begin);
    result.append("…");
    begin = span.end;
  }
  return result.append(text.bytes(), begin);
}

// The first letter of `format` that is no directive of ours, or 0. Widths could ask for gigabytes.
char UnknownDirective(std::string_view format) {
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') continue;
    if (++i < format.size() && format[i] == '-') ++i;
    const char letter = i < format.size() ? format[i] : '%';
    if (std::string_view("aAbBcdDeFHIjklmMnpRsStTuUwWxXyYZz%").find(letter) ==
        std::string_view::npos) {
      return letter;
    }
  }
  return '\0';
}

int64_t RangeSize(int64_t start, int64_t stop, int64_t step) {
  const absl::int128 distance = step > 0 ? absl::int128(stop) - start : absl::int128(start) - stop;
  if (distance <= 0) return 0;
  const absl::int128 stride = step > 0 ? absl::int128(step) : -absl::int128(step);
  const absl::int128 size = (distance + stride - 1) / stride;
  return static_cast<int64_t>(std::min(size, absl::int128(kMaxRange + 1)));
}

}  // namespace

Value Interpreter::CallValue(const Value& callee, const Arguments& arguments) {
  if (!budget_->ok()) return Value();
  if (const auto* macro = std::get_if<const Macro*>(&callee.storage())) {
    return CallMacro(**macro, arguments);
  }
  if (const auto* function = std::get_if<Function>(&callee.storage())) {
    return CallFunction(*function, arguments);
  }
  if (callee.IsUndefined()) return UndefinedError(callee, budget_);
  return budget_->TypeError(absl::StrCat(callee.TypeName(), " cannot be called"));
}

Value Interpreter::CallMacro(const Macro& macro, const Arguments& arguments) {
  std::vector<std::string_view> names;
  for (const auto& parameter : macro.parameters) names.push_back(*parameter.first);
  std::vector<Value> values(names.size());
  BindTo(arguments, names, *macro.name, values.data(), budget_);
  Scope scope{&root_, {}};
  for (size_t i = 0; i < values.size() && budget_->ok(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    const bool absent = values[i].IsUndefined();
    if (absent && fallback != nullptr) values[i] = Evaluate(*fallback, &scope);
    scope.variables[name] =
        absent && fallback == nullptr ? Value::Undefined(name) : std::move(values[i]);
  }
  Text text;
  if (budget_->ok()) RunBlock(macro.body, &scope, &text);
  return budget_->Make(std::move(text));
}

Value Interpreter::CallFunction(Function function, const Arguments& arguments) {
  switch (function) {
    case Function::kRange:
      return CallRange(arguments);
    case Function::kNamespace:
      return CallNamespace(arguments);
    case Function::kDict:
      return CallDict(arguments);
    case Function::kRaiseException:
      return CallRaiseException(arguments);
    case Function::kStrftimeNow:
      return CallStrftimeNow(arguments);
    case Function::kMethod:
      return budget_->Unsupported("a method as a value");
  }
  return Value();
}

Value Interpreter::CallRange(const Arguments& arguments) {
  auto [start, stop, step] = Bind(arguments, {"start", "stop", "step"}, "range", budget_);
  if (stop.IsUndefined()) stop = std::exchange(start, Value(int64_t{0}));
  if (step.IsUndefined()) step = Value(int64_t{1});
  if (!start.IsInteger() || !stop.IsInteger() || !step.IsInteger() || step.ToInteger() == 0) {
    return budget_->TypeError("range: wants integers, and a step that is not 0");
  }
  const int64_t size = RangeSize(start.ToInteger(), stop.ToInteger(), step.ToInteger());
  if (size > kMaxRange) {
    budget_->Exhaust("100000 numbers in a range");
    return Value();
  }
  if (!budget_->Charge(size)) return Value();
  std::vector<Value> items;
  for (int64_t i = 0; i < size; ++i) {
    items.push_back(Value(start.ToInteger() + i * step.ToInteger()));
  }
  return budget_->Make(std::move(items));
}

Value Interpreter::CallDict(const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) return budget_->TypeError("dict: more than one argument");
  if (!arguments.positional.empty()) {
    const Dict* other = arguments.positional[0].AsDict();
    if (other == nullptr) return budget_->TypeError("dict: wants a mapping");
    dict = *other;
  }
  for (const auto& [name, value] : arguments.named) {
    const auto same = [&name = name](const auto& entry) {
      return entry.first.AsText() != nullptr && entry.first.AsText()->bytes() == name;
    };
    if (!budget_->Charge(1 + static_cast<int64_t>(dict.entries.size()))) return Value();
    const auto known = std::find_if(dict.entries.begin(), dict.entries.end(), same);
    if (known != dict.entries.end()) {
      known->second = value;
    } else {
      dict.entries.emplace_back(Value::Of(name), value);
    }
  }
  return budget_->Make(std::move(dict.entries));
}

Value Interpreter::CallNamespace(const Arguments& arguments) {
  const Value values = CallDict(arguments);
  if (!budget_->ok()) return Value();
  Namespace space;
  for (const auto& [key, value] : values.AsDict()->entries) {
    const Text* name = key.AsText();
    if (name == nullptr || name->bytes().empty() || name->bytes()[0] == '_') {
      return budget_->TypeError("an attribute of a namespace must be a name without _ in front");
    }
    space.attributes.emplace_back(name->bytes(), value);
  }
  namespaces_.push_back(std::move(space));
  return Value(&namespaces_.back());
}

Value Interpreter::CallRaiseException(const Arguments& arguments) {
  const auto [message] = Bind(arguments, {"message"}, "raise_exception", budget_);
  Text text;
  Print(message, budget_, &text);
  return budget_->Refuse(WithoutContent(text));
}

Value Interpreter::CallStrftimeNow(const Arguments& arguments) {
  const auto [format] = Bind(arguments, {"format"}, "strftime_now", budget_);
  const Text* text = format.AsText();
  if (text == nullptr || text->bytes().size() > 256) {
    return budget_->TypeError("strftime_now: wants a format of at most 256 bytes");
  }
  const char unknown = UnknownDirective(text->bytes());
  if (unknown != '\0')
    return budget_->Unsupported(absl::StrCat("%", Str({&unknown, 1}), " in strftime_now"));
  return Value::Of(absl::FormatTime(text->bytes(), now_, absl::UTCTimeZone()));
}

}  // namespace nibble::jinja
