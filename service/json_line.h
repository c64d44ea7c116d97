// One flat JSON object on one line: what logs and --json print. Keys keep the order in which they
// were added.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nibble {

class JsonLine {
 public:
  void Add(std::string_view key, std::string_view value);
  void Add(std::string_view key, const char* value) { Add(key, std::string_view(value)); }
  void Add(std::string_view key, int64_t value);
  void Add(std::string_view key, int32_t value) { Add(key, static_cast<int64_t>(value)); }
  void Add(std::string_view key, double value);  // null when not finite
  void Add(std::string_view key, bool value);
  // `json` is already JSON: an object or a list.
  void AddRaw(std::string_view key, std::string_view json);
  // "{...}", without a line end.
  std::string Finish() const { return "{" + text_ + "}"; }

 private:
  void Key(std::string_view key);
  std::string text_;
};

// text in quotes, escaped; invalid UTF-8 becomes U+FFFD, so the result is always valid JSON.
std::string JsonString(std::string_view text);

}  // namespace nibble
