// Errors of a rendering, and the values whose size is bounded as they are made.
#include "engine/tokenizer/jinja_budget.h"

#include <algorithm>
#include <memory>

#include "engine/status.h"

namespace nibble::jinja {

bool Budget::Fits(int64_t bytes, int64_t times) {
  if (times <= 0 || bytes <= 0) return ok();
  return Fits(bytes > max_text_bytes_ / times ? max_text_bytes_ + 1 : bytes * times);
}

void Budget::Fail(absl::StatusCode code, std::string_view reason, std::string_view message) {
  if (!status_.ok()) return;
  status_ = Error(code, reason, absl::StrCat("chat template, line ", line_, ": ", Str(message)));
}

Value Budget::TypeError(std::string_view message) {
  Fail(absl::StatusCode::kInvalidArgument, "CHAT_TEMPLATE_ERROR", message);
  return Value();
}

Value Budget::Unsupported(std::string_view feature) {
  Fail(absl::StatusCode::kUnimplemented, "CHAT_TEMPLATE_FEATURE",
       absl::StrCat(Str(feature), " is not supported"));
  return Value();
}

Value Budget::Refuse(std::string_view message) {
  Fail(absl::StatusCode::kInvalidArgument, "CHAT_TEMPLATE_REFUSED", message);
  return Value();
}

bool Budget::Exhaust(std::string_view what) {
  Fail(absl::StatusCode::kResourceExhausted, "CHAT_TEMPLATE_LIMIT",
       absl::StrCat("the limit of ", Str(what), " is hit"));
  return false;
}

Value Budget::Make(Text text) {
  if (!Fits(static_cast<int64_t>(text.bytes().size())) || !ChargeBytes(text.Cost())) return Value();
  return Value(std::make_shared<const Text>(std::move(text)));
}

Value Budget::Make(std::vector<Value> items, bool is_tuple) {
  if (!Charge(1 + static_cast<int64_t>(items.size()))) return Value();
  int32_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.Depth());
  if (!CheckDepth(++depth)) return Value();
  return Value(std::make_shared<const List>(List{std::move(items), is_tuple, depth}));
}

Value Budget::Make(std::vector<std::pair<Value, Value>> entries) {
  if (!Charge(1 + static_cast<int64_t>(entries.size()))) return Value();
  int32_t depth = 0;
  for (const auto& [key, value] : entries) depth = std::max({depth, key.Depth(), value.Depth()});
  if (!CheckDepth(++depth)) return Value();
  return Value(std::make_shared<const Dict>(Dict{std::move(entries), depth}));
}

}  // namespace nibble::jinja
