// Attributes, items, slices and iteration.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/jinja_calls.h"
#include "engine/tokenizer/jinja_operators.h"

namespace nibble::jinja {
namespace {

Value LoopAttribute(const Loop& loop, std::string_view name) {
  const auto size = static_cast<int64_t>(loop.items->items.size());
  const auto item = [&](int64_t index) {
    const bool exists = index >= 0 && index < size;
    return exists ? loop.items->items[static_cast<size_t>(index)] : Value();
  };
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "revindex") return Value(size - loop.index0);
  if (name == "revindex0") return Value(size - loop.index0 - 1);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 + 1 == size);
  if (name == "length") return Value(size);
  if (name == "previtem") return item(loop.index0 - 1);
  if (name == "nextitem") return item(loop.index0 + 1);
  if (name == "depth") return Value(int64_t{1});  // no loop of ours is recursive
  if (name == "depth0") return Value(int64_t{0});
  return Value();
}

Value NamespaceAttribute(const Namespace& space, std::string_view name, Budget* budget) {
  budget->Charge(static_cast<int64_t>(space.attributes.size() / 8));
  for (const auto& [key, value] : space.attributes) {
    if (key == name) return value;
  }
  return Value();
}

// The attribute `name`, undefined when there is none. `value` is defined.
Value FindAttribute(const Value& value, std::string_view name, Budget* budget) {
  if (const Loop* loop = value.AsLoop()) return LoopAttribute(*loop, name);
  if (const Namespace* space = value.AsNamespace()) return NamespaceAttribute(*space, name, budget);
  return HasMethod(value, name) ? Value(Function::kMethod) : Value();
}

// A Python index into `size` items, or nothing outside.
std::optional<size_t> Position(int64_t index, int64_t size) {
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  return static_cast<size_t>(index);
}

Value TextItem(const Text& text, int64_t index, Budget* budget) {
  budget->ChargeScan(text.Cost());
  const auto position = Position(index, CountChars(text.bytes()));
  if (!position.has_value()) return Value();
  const size_t begin = CharOffset(text.bytes(), static_cast<int64_t>(*position));
  size_t length = 0;
  DecodeChar(text.bytes(), begin, &length);
  return budget->Make(Substring(text, begin, begin + length));
}

struct Range {
  int64_t start;
  int64_t stop;
  int64_t step;
};

// Python's slice.indices(size).
Range Indices(const std::optional<int64_t>& start, const std::optional<int64_t>& stop, int64_t step,
              int64_t size) {
  const int64_t low = step > 0 ? 0 : -1;
  const int64_t high = step > 0 ? size : size - 1;
  const auto clamp = [&](int64_t index) {
    return std::clamp(index < 0 ? index + size : index, low, high);
  };
  return {start.has_value() ? clamp(*start) : (step > 0 ? low : high),
          stop.has_value() ? clamp(*stop) : (step > 0 ? high : low), step};
}

// Calls visit(i) for every index of the range, while the budget lasts.
template <typename Visit>
void ForEach(const Range& range, Budget* budget, Visit visit) {
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop;) {
    if (!budget->Charge(1)) return;
    visit(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, range.step, &i)) return;
  }
}

Value SliceText(const Text& text, const Range& range, Budget* budget) {
  const std::string& bytes = text.bytes();
  if (!budget->ChargeBytes(text.Cost())) return Value();
  if (range.step == 1) {
    const size_t begin = CharOffset(bytes, range.start);
    const int64_t count = std::max<int64_t>(range.stop - range.start, 0);
    const size_t length = CharOffset(std::string_view(bytes).substr(begin), count);
    return budget->Make(Substring(text, begin, begin + length));
  }
  if (!budget->Charge(static_cast<int64_t>(bytes.size() / 8))) return Value();
  std::vector<uint32_t> offsets;
  for (CharReader reader(text); reader.Next();) {
    offsets.push_back(static_cast<uint32_t>(reader.begin()));
  }
  offsets.push_back(static_cast<uint32_t>(bytes.size()));
  Text result;
  ForEach(range, budget, [&](size_t i) { result.Append(text, offsets[i], offsets[i + 1]); });
  return budget->Make(std::move(result));
}

// Whether the value can be an index of a slice; *index is what it says, nothing when absent.
bool ReadSliceIndex(const Value& value, std::optional<int64_t>* index) {
  if (value.IsInteger()) *index = value.ToInteger();
  return value.IsInteger() || value.IsAbsent();
}

std::vector<Value> Characters(const Text& text, Budget* budget) {
  std::vector<Value> items;
  for (CharReader reader(text); reader.Next() && budget->ok();) {
    items.push_back(budget->Make(Substring(text, reader.begin(), reader.end())));
  }
  return items;
}

}  // namespace

std::shared_ptr<const List> Items(const Value& value, Budget* budget) {
  if (auto list = value.SharedList()) return list;
  std::vector<Value> items;
  if (const Dict* dict = value.AsDict()) {
    for (const auto& [key, unused] : dict->entries) items.push_back(key);
  } else if (const Text* text = value.AsText()) {
    items = Characters(*text, budget);
  } else if (!value.IsUndefined()) {
    budget->TypeError(absl::StrCat(value.TypeName(), " is not iterable"));
  }
  auto list = budget->Make(std::move(items)).SharedList();
  return list != nullptr ? list : std::make_shared<const List>();
}

std::optional<int64_t> Length(const Value& value) {
  if (const Text* text = value.AsText()) return CountChars(text->bytes());
  if (const List* list = value.AsList()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.AsDict()) return static_cast<int64_t>(dict->entries.size());
  if (const Loop* loop = value.AsLoop()) return static_cast<int64_t>(loop->items->items.size());
  if (value.IsUndefined()) return 0;
  return std::nullopt;
}

Value GetAttribute(const Value& value, NameRef name, Budget* budget) {
  if (value.IsUndefined()) return UndefinedError(value, budget);
  Value found = FindAttribute(value, *name, budget);
  if (!found.IsUndefined()) return found;
  const Dict* dict = value.AsDict();
  const Value* item = dict == nullptr ? nullptr : FindKey(*dict, *name, budget);
  return item == nullptr ? Value::Undefined(name) : *item;
}

Value GetItem(const Value& value, const Value& key, Budget* budget) {
  if (value.IsUndefined()) return UndefinedError(value, budget);
  if (const Dict* dict = value.AsDict()) {
    if (const Value* item = FindKey(*dict, key, budget)) return *item;
  }
  if (key.IsInteger()) {
    if (const Text* text = value.AsText()) return TextItem(*text, key.ToInteger(), budget);
    const List* list = value.AsList();
    if (list == nullptr) return Value();
    const auto position = Position(key.ToInteger(), static_cast<int64_t>(list->items.size()));
    return position.has_value() ? list->items[*position] : Value();
  }
  const Text* name = key.AsText();
  return name == nullptr ? Value() : FindAttribute(value, name->bytes(), budget);
}

Value GetSlice(const Value& value, const Value& start, const Value& stop, const Value& step,
               Budget* budget) {
  if (value.IsUndefined()) return UndefinedError(value, budget);
  const Text* text = value.AsText();
  const List* list = value.AsList();
  std::optional<int64_t> first, last, stride;
  const bool sliceable = (text != nullptr || list != nullptr) && ReadSliceIndex(start, &first) &&
                         ReadSliceIndex(stop, &last) && ReadSliceIndex(step, &stride);
  if (!sliceable) return Value();  // jinja2 takes Python's error for "no such item"
  if (stride == 0) return budget->TypeError("a slice step of zero");
  const Range range = Indices(first, last, stride.value_or(1), *Length(value));
  if (text != nullptr) return SliceText(*text, range, budget);
  std::vector<Value> items;
  ForEach(range, budget, [&](size_t i) { items.push_back(list->items[i]); });
  return budget->Make(std::move(items), list->is_tuple);
}

}  // namespace nibble::jinja
