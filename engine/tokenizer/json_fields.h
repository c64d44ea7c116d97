// Reads the fields of an object out of a parsed JSON document and remembers the first error, so
// that the caller reads like the list of fields and checks status() once. A field that is null
// counts as absent. Unlike loader/value.h it copies nothing: tokenizer.json has half a million
// values.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace nibble {

// Errors are DATA_LOSS with file, path, got and wanted; after one, reads return empty values. Lives
// no longer than the document.
class JsonFields {
 public:
  // path: where the object stands, for messages ("model").
  JsonFields(std::string file, std::string path, simdjson::dom::element element);

  bool Has(std::string_view key) const { return Find(key).has_value(); }
  std::string Text(std::string_view key);  // must be there
  std::optional<std::string> TextOrNull(std::string_view key);
  bool Bool(std::string_view key);  // must be there
  bool BoolOr(std::string_view key, bool fallback);
  int64_t IntOr(std::string_view key, int64_t fallback, int64_t min, int64_t max);
  int64_t Int(std::string_view key, int64_t min, int64_t max);  // must be there
  // These must be there too.
  std::optional<simdjson::dom::array> Array(std::string_view key);
  std::optional<simdjson::dom::object> Object(std::string_view key);
  std::vector<simdjson::dom::element> Elements(std::string_view key);  // a short array's
  JsonFields Child(std::string_view key);  // an object; its errors are its own

  std::optional<simdjson::dom::element> Find(std::string_view key) const;

  // Adds an error of the caller's unless there is one.
  void Fail(absl::Status status);
  // Adds an error about `key`, what being "has …".
  void FailAt(std::string_view key, std::string_view what);
  const absl::Status& status() const { return status_; }
  const std::string& file() const { return file_; }
  // "model: merges" for key merges.
  std::string PathOf(std::string_view key) const;

 private:
  JsonFields(std::string file, std::string path, absl::Status status);
  std::optional<simdjson::dom::element> Need(std::string_view key);

  std::string file_;
  std::string path_;
  simdjson::dom::object object_;
  absl::Status status_;
};

}  // namespace nibble
