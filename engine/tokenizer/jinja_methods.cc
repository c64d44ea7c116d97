// Methods of str, list and dict. Those that would change a value are known and refused, as the
// immutable sandbox does.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "engine/tokenizer/jinja_calls.h"
#include "engine/tokenizer/jinja_operators.h"
#include "utf8proc.h"

namespace nibble::jinja {
namespace {

using Methods = std::map<std::string_view, Method>;

// A str argument, or null with an error in the budget.
const Text* NeedText(const Value& value, std::string_view callee, Budget* budget) {
  const Text* text = value.AsText();
  if (text == nullptr) {
    budget->TypeError(absl::StrCat(Str(callee), ": got ", value.TypeName(), ", wanted str"));
  }
  return text;
}

int64_t IntegerOr(const Value& value, int64_t absent, std::string_view callee, Budget* budget) {
  if (value.IsAbsent()) return absent;
  if (value.IsInteger()) return value.ToInteger();
  budget->TypeError(absl::StrCat(Str(callee), ": got ", value.TypeName(), ", wanted int"));
  return absent;
}

Value MakeTexts(std::vector<Text> texts, Budget* budget) {
  std::vector<Value> items;
  items.reserve(texts.size());
  for (Text& text : texts) items.push_back(budget->Make(std::move(text)));
  return budget->Make(std::move(items));
}

template <Side kSide>
Value StripMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [chars] = Bind(arguments, {"chars"}, "strip", budget);
  const Text* set = chars.IsAbsent() ? nullptr : NeedText(chars, "strip", budget);
  budget->ChargeBytes(self.AsText()->Cost());
  if (!budget->ok()) return Value();
  return budget->Make(Strip(*self.AsText(), set == nullptr ? nullptr : &set->bytes(), kSide));
}

// Asked before the pieces are made: how many there may be at most.
bool ChargePieces(const Text& text, std::string_view separator, int64_t max_splits,
                  Budget* budget) {
  if (!budget->ChargeBytes(text.Cost())) return false;
  const int64_t cuts = CountOccurrences(text.bytes(), separator);
  return budget->Charge(max_splits < 0 ? cuts : std::min(cuts, max_splits));
}

template <bool kFromRight>
Value SplitMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [sep, maxsplit] = Bind(arguments, {"sep", "maxsplit"}, "split", budget);
  const int64_t max_splits = IntegerOr(maxsplit, -1, "split", budget);
  const Text& text = *self.AsText();
  if (sep.IsAbsent()) {
    if (kFromRight && max_splits >= 0) return budget->Unsupported("rsplit(None, maxsplit)");
    if (!budget->Charge(text.Cost() / 2)) return Value();
    return MakeTexts(SplitWords(text, max_splits), budget);
  }
  const Text* separator = NeedText(sep, "split", budget);
  if (separator == nullptr) return Value();
  if (separator->bytes().empty()) return budget->TypeError("split: an empty separator");
  if (!ChargePieces(text, separator->bytes(), max_splits, budget)) return Value();
  return MakeTexts(kFromRight ? SplitFromRight(text, separator->bytes(), max_splits)
                              : Split(text, separator->bytes(), max_splits),
                   budget);
}

Value SplitLinesMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [keepends] = Bind(arguments, {"keepends"}, "splitlines", budget);
  if (!budget->Charge(1 + self.AsText()->Cost() / 2)) return Value();
  return MakeTexts(SplitLines(*self.AsText(), keepends.Truth()), budget);
}

template <bool kStart>
Value StartsWithMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [affix] = Bind(arguments, {"affix"}, kStart ? "startswith" : "endswith", budget);
  const std::string& bytes = self.AsText()->bytes();
  const List one{{affix}};
  const List* list = affix.AsList();
  for (const Value& item : (list == nullptr ? one : *list).items) {
    const Text* text = NeedText(item, kStart ? "startswith" : "endswith", budget);
    if (text == nullptr || !budget->ChargeScan(text->Cost())) return Value();
    const size_t size = text->bytes().size();
    if (size > bytes.size()) continue;
    if (bytes.compare(kStart ? 0 : bytes.size() - size, size, text->bytes()) == 0) {
      return Value(true);
    }
  }
  return Value(false);
}

template <bool kStart>
Value RemoveAffixMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const Value has = StartsWithMethod<kStart>(self, arguments, budget);
  if (!has.Truth()) return self;
  const Text* affix = arguments.positional.empty() ? nullptr : arguments.positional[0].AsText();
  if (affix == nullptr) return budget->TypeError("removeprefix, removesuffix: wanted a str");
  const Text& text = *self.AsText();
  const size_t size = text.bytes().size();
  const size_t cut = affix->bytes().size();
  return budget->Make(kStart ? Substring(text, cut, size) : Substring(text, 0, size - cut));
}

template <Text (*kMap)(const Text&)>
Value MapMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  if (!arguments.positional.empty()) return budget->TypeError("the method takes no arguments");
  if (!budget->Charge(1 + self.AsText()->Cost() / 16)) return Value();
  return budget->Make(kMap(*self.AsText()));
}

Value ReplaceMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [what, with, count] = Bind(arguments, {"old", "new", "count"}, "replace", budget);
  const Text* from = NeedText(what, "replace", budget);
  const Text* to = NeedText(with, "replace", budget);
  const int64_t max_count = IntegerOr(count, -1, "replace", budget);
  const Text& text = *self.AsText();
  if (!budget->ok() || !budget->ChargeBytes(text.Cost())) return Value();
  int64_t times = CountOccurrences(text.bytes(), from->bytes());
  if (max_count >= 0) times = std::min(times, max_count);
  if (!budget->Charge(times / 16) || !budget->Fits(to->Cost(), times)) return Value();
  return budget->Make(Replace(text, from->bytes(), *to, max_count));
}

Value JoinMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [items] = Bind(arguments, {"iterable"}, "join", budget);
  Text result;
  bool first = true;
  const auto list = Items(items, budget);
  for (const Value& item : list->items) {
    if (NeedText(item, "join", budget) == nullptr) return Value();
    if (!first) Print(self, budget, &result);
    first = false;
    Print(item, budget, &result);
    if (!budget->ok()) return Value();
  }
  return budget->Make(std::move(result));
}

Value FindMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [what] = Bind(arguments, {"sub"}, "find", budget);
  const Text* part = NeedText(what, "find", budget);
  const std::string& bytes = self.AsText()->bytes();
  if (part == nullptr || !budget->ChargeScan(self.AsText()->Cost())) return Value();
  const size_t at = Searcher(part->bytes()).Find(bytes);
  if (at == std::string::npos) return Value(int64_t{-1});
  return Value(CountChars(std::string_view(bytes).substr(0, at)));
}

Value CountMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [what] = Bind(arguments, {"sub"}, "count", budget);
  if (const List* list = self.AsList()) {
    int64_t count = 0;
    for (const Value& item : list->items) count += Equal(item, what, budget) ? 1 : 0;
    return Value(count);
  }
  const Text* part = NeedText(what, "count", budget);
  if (part == nullptr || !budget->ChargeScan(self.AsText()->Cost())) return Value();
  return Value(CountOccurrences(self.AsText()->bytes(), part->bytes()));
}

// isdigit and friends: at least one character, and all of the kind.
template <bool (*kIs)(utf8proc_category_t, char32_t)>
Value AllMethod(const Value& self, const Arguments&, Budget* budget) {
  bool all = !self.AsText()->bytes().empty() && budget->ChargeScan(self.AsText()->Cost());
  for (CharReader reader(*self.AsText()); all && reader.Next();) {
    const char32_t c = reader.code_point();
    all = kIs(utf8proc_category(static_cast<utf8proc_int32_t>(c)), c);
  }
  return Value(all);
}

bool IsDigitChar(utf8proc_category_t category, char32_t) {
  return category == UTF8PROC_CATEGORY_ND;
}
bool IsAlpha(utf8proc_category_t category, char32_t) {
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool IsAlnum(utf8proc_category_t category, char32_t c) {
  return IsAlpha(category, c) ||
         (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}
bool IsSpaceChar(utf8proc_category_t, char32_t c) { return IsSpace(c); }

// isupper, islower: a cased character at least, and none of the other case.
template <utf8proc_category_t kWanted, utf8proc_category_t kOther>
Value CaseMethod(const Value& self, const Arguments&, Budget* budget) {
  bool some = false;
  bool none_else = budget->ChargeScan(self.AsText()->Cost());
  for (CharReader reader(*self.AsText()); none_else && reader.Next();) {
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(reader.code_point()));
    some = some || category == kWanted;
    none_else = category != kOther && category != UTF8PROC_CATEGORY_LT;
  }
  return Value(some && none_else);
}

Value FormatMethod(const Value&, const Arguments&, Budget* budget) {
  return budget->Unsupported("str.format");
}

Value ChangingMethod(const Value& self, const Arguments&, Budget* budget) {
  return budget->TypeError(
      absl::StrCat("the method would change a ", self.TypeName(), ", which the sandbox forbids"));
}

Value CopyMethod(const Value& self, const Arguments&, Budget*) { return self; }

template <bool kKeys, bool kValues>
Value EntriesMethod(const Value& self, const Arguments&, Budget* budget) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.AsDict()->entries) {
    if (kKeys && kValues) {
      items.push_back(budget->Make(std::vector<Value>{key, value}, /*is_tuple=*/true));
    } else {
      items.push_back(kKeys ? key : value);
    }
  }
  return budget->Make(std::move(items));
}

Value GetMethod(const Value& self, const Arguments& arguments, Budget* budget) {
  const auto [key, absent] = Bind(arguments, {"key", "default"}, "get", budget);
  const Value* found = FindKey(*self.AsDict(), key, budget);
  if (found != nullptr) return *found;
  return absent.IsUndefined() ? Value::None() : absent;
}

const Methods& TextMethods() {
  static const Methods methods = {
      {"strip", StripMethod<Side::kBoth>},
      {"lstrip", StripMethod<Side::kLeft>},
      {"rstrip", StripMethod<Side::kRight>},
      {"split", SplitMethod<false>},
      {"rsplit", SplitMethod<true>},
      {"splitlines", SplitLinesMethod},
      {"startswith", StartsWithMethod<true>},
      {"endswith", StartsWithMethod<false>},
      {"removeprefix", RemoveAffixMethod<true>},
      {"removesuffix", RemoveAffixMethod<false>},
      {"upper", MapMethod<Upper>},
      {"lower", MapMethod<Lower>},
      {"title", MapMethod<Title>},
      {"capitalize", MapMethod<Capitalize>},
      {"replace", ReplaceMethod},
      {"join", JoinMethod},
      {"find", FindMethod},
      {"count", CountMethod},
      {"isdigit", AllMethod<IsDigitChar>},
      {"isalpha", AllMethod<IsAlpha>},
      {"isalnum", AllMethod<IsAlnum>},
      {"isspace", AllMethod<IsSpaceChar>},
      {"isupper", CaseMethod<UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL>},
      {"islower", CaseMethod<UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LU>},
      {"format", FormatMethod},
  };
  return methods;
}

const Methods& ListMethods() {
  static const Methods methods = {
      {"count", CountMethod},      {"copy", CopyMethod},       {"append", ChangingMethod},
      {"extend", ChangingMethod},  {"insert", ChangingMethod}, {"pop", ChangingMethod},
      {"remove", ChangingMethod},  {"clear", ChangingMethod},  {"sort", ChangingMethod},
      {"reverse", ChangingMethod},
  };
  return methods;
}

const Methods& DictMethods() {
  static const Methods methods = {
      {"items", EntriesMethod<true, true>},
      {"keys", EntriesMethod<true, false>},
      {"values", EntriesMethod<false, true>},
      {"get", GetMethod},
      {"copy", CopyMethod},
      {"pop", ChangingMethod},
      {"popitem", ChangingMethod},
      {"update", ChangingMethod},
      {"clear", ChangingMethod},
      {"setdefault", ChangingMethod},
  };
  return methods;
}

Method FindMethodOf(const Value& self, std::string_view name) {
  const bool known = self.AsText() || self.AsList() || self.AsDict();
  if (!known) return nullptr;
  const Methods& methods = self.AsText()   ? TextMethods()
                           : self.AsList() ? ListMethods()
                                           : DictMethods();
  const auto found = methods.find(name);
  return found == methods.end() ? nullptr : found->second;
}

}  // namespace

bool HasMethod(const Value& self, std::string_view name) {
  return FindMethodOf(self, name) != nullptr;
}

Value CallMethod(const Value& self, std::string_view name, const Arguments& arguments,
                 Budget* budget) {
  return FindMethodOf(self, name)(self, arguments, budget);
}

void BindTo(const Arguments& arguments, std::span<const std::string_view> names,
            std::string_view callee, Value* values, Budget* budget) {
  if (arguments.positional.size() > names.size()) {
    budget->TypeError(absl::StrCat(Str(callee), ": ", arguments.positional.size(),
                                   " arguments, at most ", names.size()));
    return;
  }
  std::copy(arguments.positional.begin(), arguments.positional.end(), values);
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::find(names.begin(), names.end(), name);
    const auto index = static_cast<size_t>(at - names.begin());
    if (at == names.end() || index < arguments.positional.size()) {
      budget->TypeError(absl::StrCat(Str(callee), ": an unexpected argument '", name, "'"));
      return;
    }
    values[index] = value;
  }
}

}  // namespace nibble::jinja
