// Filters of what can be walked over. They give lists where jinja2 gives generators.
#include <algorithm>
#include <bit>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "engine/tokenizer/jinja_filters.h"
#include "engine/tokenizer/jinja_operators.h"

namespace nibble::jinja {
namespace {

// item.a.b.0 for the attribute "a.b.0".
Value AttributeOf(Value item, const Value& attribute, Budget* budget) {
  if (attribute.IsInteger()) return GetItem(item, attribute, budget);
  const Text* path = attribute.AsText();
  if (path == nullptr) return budget->TypeError("an attribute is named by a str or an int");
  for (const Text& part : Split(*path, ".", -1)) {
    int64_t index = 0;
    const bool is_index = absl::SimpleAtoi(part.bytes(), &index);
    item = GetItem(item, is_index ? Value(index) : budget->Make(part), budget);
    if (!budget->ok()) return Value();
  }
  return item;
}

// What an item is compared by: itself or an attribute, its case aside if it is text.
Value KeyOf(const Value& item, const Value& attribute, bool case_sensitive, Budget* budget) {
  Value key = attribute.IsAbsent() ? item : AttributeOf(item, attribute, budget);
  if (case_sensitive || key.AsText() == nullptr) return key;
  return CallMethod(key, "lower", {}, budget);
}

// The items in the order of their keys; equal ones stay in theirs.
std::vector<Value> Sorted(const std::vector<Value>& items, const std::vector<Value>& keys,
                          bool reverse, Budget* budget) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto steps = static_cast<int64_t>(items.size() * std::bit_width(items.size()));
  if (!budget->Charge(steps)) return {};
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? Less(keys[b], keys[a], budget) : Less(keys[a], keys[b], budget);
  });
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t index : order) sorted.push_back(items[index]);
  return sorted;
}

Value SortFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [reverse, case_sensitive, attribute] =
      Bind(arguments, {"reverse", "case_sensitive", "attribute"}, "sort", budget);
  const auto list = Items(input, budget);
  std::vector<Value> keys;
  for (const Value& item : list->items) {
    keys.push_back(KeyOf(item, attribute, case_sensitive.Truth(), budget));
  }
  return budget->Make(Sorted(list->items, keys, reverse.Truth(), budget));
}

Value DictSortFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [case_sensitive, by, reverse] =
      Bind(arguments, {"case_sensitive", "by", "reverse"}, "dictsort", budget);
  const Dict* dict = input.AsDict();
  if (dict == nullptr) return budget->TypeError("dictsort: wants a mapping");
  const bool by_value = by.AsText() != nullptr && by.AsText()->bytes() == "value";
  std::vector<Value> items;
  std::vector<Value> keys;
  for (const auto& [key, value] : dict->entries) {
    items.push_back(budget->Make(std::vector<Value>{key, value}, /*is_tuple=*/true));
    keys.push_back(KeyOf(by_value ? value : key, Value(), case_sensitive.Truth(), budget));
  }
  return budget->Make(Sorted(items, keys, reverse.Truth(), budget));
}

Value UniqueFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [case_sensitive, attribute] =
      Bind(arguments, {"case_sensitive", "attribute"}, "unique", budget);
  std::vector<Value> kept;
  std::vector<Value> seen;
  const auto list = Items(input, budget);
  for (const Value& item : list->items) {
    Value key = KeyOf(item, attribute, case_sensitive.Truth(), budget);
    const auto same = [&](const Value& other) { return Equal(other, key, budget); };
    if (std::any_of(seen.begin(), seen.end(), same)) continue;
    if (!budget->ok()) return Value();
    kept.push_back(item);
    seen.push_back(std::move(key));
  }
  return budget->Make(std::move(kept));
}

template <bool kMax>
Value ExtremeFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [case_sensitive, attribute] =
      Bind(arguments, {"case_sensitive", "attribute"}, kMax ? "max" : "min", budget);
  Value best;
  Value best_key;
  bool first = true;
  const auto list = Items(input, budget);
  for (const Value& item : list->items) {
    const Value key = KeyOf(item, attribute, case_sensitive.Truth(), budget);
    const bool better = first || (kMax ? Less(best_key, key, budget) : Less(key, best_key, budget));
    first = false;
    if (!budget->ok()) return Value();
    if (!better) continue;
    best = item;
    best_key = key;
  }
  return best;
}

Value SumFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [attribute, start] = Bind(arguments, {"attribute", "start"}, "sum", budget);
  Value sum = start.IsAbsent() ? Value(int64_t{0}) : start;
  const auto list = Items(input, budget);
  for (const Value& item : list->items) {
    const Value addend = attribute.IsAbsent() ? item : AttributeOf(item, attribute, budget);
    sum = Apply(Operator::kAdd, sum, addend, budget);
    if (!budget->ok()) return Value();
  }
  return sum;
}

Value JoinFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [separator, attribute] = Bind(arguments, {"d", "attribute"}, "join", budget);
  Text result;
  bool first = true;
  const auto list = Items(input, budget);
  for (const Value& item : list->items) {
    if (!first) Print(separator, budget, &result);
    first = false;
    Print(attribute.IsAbsent() ? item : AttributeOf(item, attribute, budget), budget, &result);
    if (!budget->ok()) return Value();
  }
  return budget->Make(std::move(result));
}

Value FirstFilter(const Value& input, const Arguments&, Budget* budget) {
  if (input.AsText() != nullptr) return GetItem(input, Value(int64_t{0}), budget);
  const auto list = Items(input, budget);
  return list->items.empty() ? Value() : list->items.front();
}

Value LastFilter(const Value& input, const Arguments&, Budget* budget) {
  if (input.AsText() != nullptr) return GetItem(input, Value(int64_t{-1}), budget);
  const auto list = Items(input, budget);
  return list->items.empty() ? Value() : list->items.back();
}

Value LengthFilter(const Value& input, const Arguments&, Budget* budget) {
  if (const Text* text = input.AsText()) budget->ChargeScan(text->Cost());
  const std::optional<int64_t> length = Length(input);
  if (length.has_value()) return Value(*length);
  return budget->TypeError(absl::StrCat(input.TypeName(), " has no length"));
}

Value ListFilter(const Value& input, const Arguments&, Budget* budget) {
  return budget->Make(Items(input, budget)->items);
}

Value ReverseFilter(const Value& input, const Arguments&, Budget* budget) {
  if (input.AsText() != nullptr) {
    return GetSlice(input, Value(), Value(), Value(int64_t{-1}), budget);
  }
  std::vector<Value> items = Items(input, budget)->items;
  std::reverse(items.begin(), items.end());
  return budget->Make(std::move(items));
}

Value ItemsFilter(const Value& input, const Arguments&, Budget* budget) {
  if (input.IsUndefined()) return budget->Make(std::vector<Value>());
  if (input.AsDict() == nullptr) return budget->TypeError("items: wants a mapping");
  return CallMethod(input, "items", {}, budget);
}

// The arguments after the first `count`.
Arguments Rest(const Arguments& arguments, size_t count) {
  const auto& all = arguments.positional;
  return {{all.begin() + static_cast<ptrdiff_t>(std::min(count, all.size())), all.end()},
          arguments.named};
}

// A filter's or test's name, given as an argument; empty with an error in the budget.
std::string NameArgument(const Arguments& arguments, size_t index, std::string_view callee,
                         Budget* budget) {
  const Text* name =
      index < arguments.positional.size() ? arguments.positional[index].AsText() : nullptr;
  if (name == nullptr) budget->TypeError(absl::StrCat(Str(callee), ": a name is missing"));
  return name == nullptr ? "" : name->bytes();
}

// map(attribute=…, default=…)
Value MapAttribute(const Value& input, const Arguments& arguments, Budget* budget) {
  const auto [unused, attribute, other] =
      Bind(arguments, {"", "attribute", "default"}, "map", budget);
  std::vector<Value> items;
  const auto list = Items(input, budget);
  for (const Value& item : list->items) {
    Value value = AttributeOf(item, attribute, budget);
    if (!budget->ok()) return Value();
    items.push_back(value.IsUndefined() && !other.IsAbsent() ? other : std::move(value));
  }
  return budget->Make(std::move(items));
}

Value MapFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  if (arguments.positional.empty()) return MapAttribute(input, arguments, budget);
  const std::string name = NameArgument(arguments, 0, "map", budget);
  const Filter filter = FindFilter(name);
  if (filter == nullptr) return budget->Unsupported(absl::StrCat("the filter ", name));
  const Arguments rest = Rest(arguments, 1);
  std::vector<Value> items;
  const auto list = Items(input, budget);
  if (!budget->Enter()) return Value();  // a filter that maps with itself
  for (const Value& item : list->items) {
    items.push_back(filter(item, rest, budget));
    if (!budget->Charge(1)) break;
  }
  budget->Leave();
  return budget->Make(std::move(items));
}

// select, reject (by a test of the item) and selectattr, rejectattr (of its attribute).
template <bool kWanted, bool kByAttribute>
Value SelectFilter(const Value& input, const Arguments& arguments, Budget* budget) {
  constexpr size_t kSkipped = kByAttribute ? 1 : 0;
  if (arguments.positional.size() < kSkipped) {
    return budget->TypeError("selectattr, rejectattr: the attribute is missing");
  }
  Test test = nullptr;
  if (arguments.positional.size() > kSkipped) {
    const std::string name = NameArgument(arguments, kSkipped, "select, reject", budget);
    test = FindTest(name);
    if (test == nullptr) return budget->Unsupported(absl::StrCat("the test ", name));
  }
  const Arguments rest = Rest(arguments, kSkipped + 1);
  std::vector<Value> items;
  const auto list = Items(input, budget);
  for (const Value& item : list->items) {
    const Value subject = kByAttribute ? AttributeOf(item, arguments.positional[0], budget) : item;
    const bool holds = test == nullptr ? subject.Truth() : test(subject, rest, budget);
    if (!budget->Charge(1)) return Value();
    if (holds == kWanted) items.push_back(item);
  }
  return budget->Make(std::move(items));
}

}  // namespace

const Filters& CollectionFilters() {
  static const Filters filters = {
      {"count", LengthFilter},
      {"dictsort", DictSortFilter},
      {"first", FirstFilter},
      {"items", ItemsFilter},
      {"join", JoinFilter},
      {"last", LastFilter},
      {"length", LengthFilter},
      {"list", ListFilter},
      {"map", MapFilter},
      {"max", ExtremeFilter<true>},
      {"min", ExtremeFilter<false>},
      {"reject", SelectFilter<false, false>},
      {"rejectattr", SelectFilter<false, true>},
      {"reverse", ReverseFilter},
      {"select", SelectFilter<true, false>},
      {"selectattr", SelectFilter<true, true>},
      {"sort", SortFilter},
      {"sum", SumFilter},
      {"unique", UniqueFilter},
  };
  return filters;
}

}  // namespace nibble::jinja
