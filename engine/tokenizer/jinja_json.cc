// json.dumps as chat templates call it: nothing is escaped for HTML, and by default nothing for
// ASCII.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/status.h"
#include "engine/tokenizer/jinja_budget.h"
#include "engine/tokenizer/jinja_value.h"

namespace nibble::jinja {
namespace {

std::string EscapeForJson(char32_t c, bool ensure_ascii) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  const auto number = static_cast<uint32_t>(c);
  if (c < 0x20 || (c > 0x7E && c < 0x10000 && ensure_ascii)) {
    return absl::StrFormat("\\u%04x", number);
  }
  if (c < 0x7F || !ensure_ascii) return "";
  return absl::StrFormat("\\u%04x\\u%04x", 0xD800 + ((number - 0x10000) >> 10),
                         0xDC00 + (number & 0x3FF));
}

void WriteString(const Text& text, const JsonStyle& style, Budget* budget, Text* out) {
  if (!budget->ChargeBytes(text.Cost()) ||
      !budget->Fits(static_cast<int64_t>(out->bytes().size() + text.bytes().size()))) {
    return;
  }
  out->Append("\"");
  for (CharReader reader(text); reader.Next();) {
    const std::string escape = EscapeForJson(reader.code_point(), style.ensure_ascii);
    if (escape.empty()) {
      out->Append(text, reader.begin(), reader.end());
    } else {
      out->Append(escape, reader.is_content());
    }
  }
  out->Append("\"");
}

// Between the items of a container, and before its end.
void NewLine(const JsonStyle& style, int level, Budget* budget, Text* out) {
  if (style.indent < 0) return;
  const int64_t spaces = style.indent * level;  // both are small: the filter bounds indent
  if (!budget->ChargeBytes(spaces) ||
      !budget->Fits(static_cast<int64_t>(out->bytes().size()) + spaces)) {
    return;
  }
  out->Append("\n");
  out->Append(std::string(static_cast<size_t>(spaces), ' '));
}

void WriteList(const List& list, const JsonStyle& style, int level, Budget* budget, Text* out) {
  out->Append("[");
  bool first = true;
  for (const Value& item : list.items) {
    if (!budget->Charge(1)) return;
    if (!first) out->Append(style.item_separator);
    first = false;
    NewLine(style, level + 1, budget, out);
    WriteJson(item, style, level + 1, budget, out);
  }
  if (!first) NewLine(style, level, budget, out);
  out->Append("]");
}

// A key as json.dumps spells it: a string as it is, a scalar as JSON writes it.
Text KeyText(const Value& key, const JsonStyle& style, Budget* budget) {
  if (key.AsText() != nullptr) return *key.AsText();
  Text text;
  if (key.IsNone() || key.IsNumber()) {
    WriteJson(key, style, 0, budget, &text);
  } else {
    budget->TypeError(absl::StrCat("tojson: a key is ", key.TypeName(), ", wanted str"));
  }
  return text;
}

void WriteDict(const Dict& dict, const JsonStyle& style, int level, Budget* budget, Text* out) {
  std::vector<const std::pair<Value, Value>*> entries;
  for (const auto& entry : dict.entries) entries.push_back(&entry);
  const auto is_text = [](const auto* entry) { return entry->first.AsText() != nullptr; };
  if (style.sort_keys) {
    if (!std::all_of(entries.begin(), entries.end(), is_text)) {
      budget->TypeError("tojson: sort_keys with keys that are no strings");
      return;
    }
    std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
      return a->first.AsText()->bytes() < b->first.AsText()->bytes();
    });
  }
  out->Append("{");
  bool first = true;
  for (const auto* entry : entries) {
    if (!budget->Charge(1)) return;
    if (!first) out->Append(style.item_separator);
    first = false;
    NewLine(style, level + 1, budget, out);
    WriteString(KeyText(entry->first, style, budget), style, budget, out);
    out->Append(style.key_separator);
    WriteJson(entry->second, style, level + 1, budget, out);
  }
  if (!first) NewLine(style, level, budget, out);
  out->Append("}");
}

}  // namespace

void WriteJson(const Value& value, const JsonStyle& style, int level, Budget* budget, Text* out) {
  if (!budget->Charge(1)) return;
  if (const Text* text = value.AsText()) return WriteString(*text, style, budget, out);
  if (const List* list = value.AsList()) return WriteList(*list, style, level, budget, out);
  if (const Dict* dict = value.AsDict()) return WriteDict(*dict, style, level, budget, out);
  if (value.IsNone()) return out->Append("null");
  if (const bool* truth = value.AsBool()) return out->Append(*truth ? "true" : "false");
  if (value.IsInteger()) return out->Append(absl::StrCat(value.ToInteger()));
  if (value.IsNumber()) {
    const std::string text = FormatDouble(value.ToDouble());
    return out->Append(text == "nan"    ? "NaN"
                       : text == "inf"  ? "Infinity"
                       : text == "-inf" ? "-Infinity"
                                        : text);
  }
  budget->TypeError(absl::StrCat("tojson: ", value.TypeName(), " is not JSON serializable"));
}

}  // namespace nibble::jinja
