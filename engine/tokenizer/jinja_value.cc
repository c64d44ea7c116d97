// Python's idea of truth, equality and str() for the values of a template.
#include "engine/tokenizer/jinja_value.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/tokenizer/jinja_budget.h"
#include "utf8proc.h"

namespace nibble::jinja {
namespace {

template <typename T>
const T* Get(const Value& value) {
  return std::get_if<T>(&value.storage());
}

bool EqualItems(const std::vector<Value>& a, const std::vector<Value>& b, Budget* budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Equal(a[i], b[i], budget)) return false;
  }
  return true;
}

bool EqualEntries(const Dict& a, const Dict& b, Budget* budget) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = FindKey(b, key, budget);
    if (other == nullptr || !Equal(value, *other, budget)) return false;
  }
  return true;
}

// Whether Python's repr writes the character as itself.
bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

std::string Escaped(char32_t c, char quote) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c == '\\' || c == static_cast<char32_t>(quote)) return {'\\', static_cast<char>(c)};
  const auto number = static_cast<uint32_t>(c);
  if (c < 0x100) return absl::StrFormat("\\x%02x", number);
  return c < 0x10000 ? absl::StrFormat("\\u%04x", number) : absl::StrFormat("\\U%08x", number);
}

void ReprText(const Text& text, Budget* budget, Text* out) {
  const std::string& bytes = text.bytes();
  if (!budget->ChargeBytes(text.Cost()) ||
      !budget->Fits(static_cast<int64_t>(out->bytes().size() + bytes.size()))) {
    return;
  }
  const bool has_single = bytes.find('\'') != std::string::npos;
  const char quote = has_single && bytes.find('"') == std::string::npos ? '"' : '\'';
  out->Append(std::string_view(&quote, 1));
  for (CharReader reader(text); reader.Next();) {
    const char32_t c = reader.code_point();
    if (IsPrintable(c) && c != '\\' && c != static_cast<char32_t>(quote)) {
      out->Append(text, reader.begin(), reader.end());
    } else {
      out->Append(Escaped(c, quote), reader.is_content());
    }
  }
  out->Append(std::string_view(&quote, 1));
}

void ReprList(const List& list, Budget* budget, Text* out) {
  out->Append(list.is_tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size() && budget->Charge(1); ++i) {
    if (i > 0) out->Append(", ");
    Repr(list.items[i], budget, out);
  }
  if (list.is_tuple && list.items.size() == 1) out->Append(",");
  out->Append(list.is_tuple ? ")" : "]");
}

void ReprDict(const Dict& dict, Budget* budget, Text* out) {
  out->Append("{");
  for (size_t i = 0; i < dict.entries.size() && budget->Charge(1); ++i) {
    if (i > 0) out->Append(", ");
    Repr(dict.entries[i].first, budget, out);
    out->Append(": ");
    Repr(dict.entries[i].second, budget, out);
  }
  out->Append("}");
}

}  // namespace

bool Value::IsInteger() const {
  return std::holds_alternative<bool>(storage_) || std::holds_alternative<int64_t>(storage_);
}
bool Value::IsNumber() const { return IsInteger() || std::holds_alternative<double>(storage_); }

const Text* Value::AsText() const {
  const auto* text = std::get_if<TextPtr>(&storage_);
  return text == nullptr ? nullptr : text->get();
}
const List* Value::AsList() const { return SharedList().get(); }
std::shared_ptr<const List> Value::SharedList() const {
  const auto* list = std::get_if<std::shared_ptr<const List>>(&storage_);
  return list == nullptr ? nullptr : *list;
}
const Dict* Value::AsDict() const {
  const auto* dict = std::get_if<std::shared_ptr<const Dict>>(&storage_);
  return dict == nullptr ? nullptr : dict->get();
}
Namespace* Value::AsNamespace() const {
  const auto* space = std::get_if<Namespace*>(&storage_);
  return space == nullptr ? nullptr : *space;
}
Loop* Value::AsLoop() const {
  const auto* loop = std::get_if<std::shared_ptr<Loop>>(&storage_);
  return loop == nullptr ? nullptr : loop->get();
}

int64_t Value::ToInteger() const {
  const bool* truth = AsBool();
  return truth != nullptr ? int64_t{*truth} : std::get<int64_t>(storage_);
}
double Value::ToDouble() const {
  const auto* real = std::get_if<double>(&storage_);
  return real != nullptr ? *real : static_cast<double>(ToInteger());
}

bool Value::Truth() const {
  if (IsAbsent()) return false;
  if (IsNumber()) return ToDouble() != 0;
  if (const Text* text = AsText()) return !text->bytes().empty();
  if (const List* list = AsList()) return !list->items.empty();
  if (const Dict* dict = AsDict()) return !dict->entries.empty();
  return true;
}

int32_t Value::Depth() const {
  if (const List* list = AsList()) return list->depth;
  if (const Dict* dict = AsDict()) return dict->depth;
  if (const Loop* loop = AsLoop()) return loop->items->depth + 1;
  return 0;
}

const char* Value::TypeName() const {
  if (IsUndefined()) return "Undefined";
  if (IsNone()) return "NoneType";
  if (AsBool() != nullptr) return "bool";
  if (IsInteger()) return "int";
  if (IsNumber()) return "float";
  if (AsText() != nullptr) return "str";
  if (const List* list = AsList()) return list->is_tuple ? "tuple" : "list";
  if (AsDict() != nullptr) return "dict";
  if (AsNamespace() != nullptr) return "Namespace";
  return AsLoop() != nullptr ? "LoopContext" : "function";
}

bool Equal(const Value& a, const Value& b, Budget* budget) {
  if (!budget->Charge(1)) return false;
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsInteger() && b.IsInteger()) return a.ToInteger() == b.ToInteger();
    return a.ToDouble() == b.ToDouble();
  }
  if (a.storage().index() != b.storage().index()) return false;
  if (a.IsAbsent()) return true;
  if (const Text* text = a.AsText()) {
    const std::string& other = b.AsText()->bytes();
    if (text->bytes().size() != other.size()) return false;
    return budget->ChargeScan(static_cast<int64_t>(other.size())) && text->bytes() == other;
  }
  if (const List* list = a.AsList()) {
    const List& other = *b.AsList();
    return list->is_tuple == other.is_tuple && EqualItems(list->items, other.items, budget);
  }
  if (const Dict* dict = a.AsDict()) return EqualEntries(*dict, *b.AsDict(), budget);
  if (const auto* space = Get<Namespace*>(a)) return *space == b.AsNamespace();
  if (const Loop* loop = a.AsLoop()) return loop == b.AsLoop();
  if (const auto* macro = Get<const Macro*>(a)) return *macro == *Get<const Macro*>(b);
  return *Get<Function>(a) == *Get<Function>(b);
}

const Value* FindKey(const Dict& dict, const Value& key, Budget* budget) {
  for (const auto& [name, value] : dict.entries) {
    if (Equal(name, key, budget)) return &value;
  }
  return nullptr;
}

const Value* FindKey(const Dict& dict, std::string_view key, Budget* budget) {
  for (const auto& [name, value] : dict.entries) {
    if (!budget->Charge(1)) return nullptr;
    const Text* text = name.AsText();
    if (text != nullptr && text->bytes() == key) return &value;
  }
  return nullptr;
}

std::string FormatDouble(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const double size = std::fabs(value);
  // Python writes an exponent below 1e-4 and from 1e16 on.
  const bool scientific = size != 0 && (size < 1e-4 || size >= 1e16);
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value,
                    scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer, end.ptr);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void Print(const Value& value, Budget* budget, Text* out) {
  if (value.IsUndefined()) return;
  const Text* text = value.AsText();
  if (text == nullptr) return Repr(value, budget, out);
  if (!budget->ChargeBytes(text->Cost()) ||
      !budget->Fits(static_cast<int64_t>(out->bytes().size() + text->bytes().size()))) {
    return;
  }
  out->Append(*text);
}

void Repr(const Value& value, Budget* budget, Text* out) {
  if (!budget->Charge(1)) return;
  if (const Text* text = value.AsText()) return ReprText(*text, budget, out);
  if (const List* list = value.AsList()) return ReprList(*list, budget, out);
  if (const Dict* dict = value.AsDict()) return ReprDict(*dict, budget, out);
  if (value.IsUndefined()) return out->Append("Undefined");
  if (value.IsNone()) return out->Append("None");
  if (const bool* truth = value.AsBool()) return out->Append(*truth ? "True" : "False");
  if (value.IsInteger()) return out->Append(absl::StrCat(value.ToInteger()));
  if (value.IsNumber()) return out->Append(FormatDouble(value.ToDouble()));
  out->Append(absl::StrCat("<", value.TypeName(), ">"));
}

}  // namespace nibble::jinja
