// See hf_tokenizer_files.h.
#include "engine/loader/hf_tokenizer_files.h"

#include <simdjson.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/loader/json.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/value.h"

namespace nibble {
namespace {

constexpr char kTokenizer[] = "tokenizer.json";
constexpr char kConfig[] = "tokenizer_config.json";
constexpr char kSpecialTokens[] = "special_tokens_map.json";
constexpr char kTemplate[] = "chat_template.jinja";
constexpr int64_t kMaxTokenizerBytes = 256 << 20;
constexpr int64_t kMaxTextBytes = 16 << 20;
constexpr int64_t kUnlimited = int64_t{1} << 30;

// Empty when there is no such file.
absl::StatusOr<std::string> ReadIfPresent(const std::string& directory, const char* file,
                                          int64_t max_bytes) {
  const std::string path = absl::StrCat(directory, "/", file);
  if (!PathExists(path)) return std::string();
  return ReadTextFile(path, max_bytes);
}

// A special token is its text, or an object that has it as "content".
std::string ReadTokenText(Fields& fields, const Value& config, std::string_view key) {
  const Value* token = config.Find(key);
  if (token == nullptr || token->AsObject() == nullptr) return fields.TextOr(key, "");
  Fields inner(absl::StrCat(fields.where(), ": ", std::string(key)), *token);
  std::string text = inner.Text("content");
  fields.Fail(inner.status());
  return text;
}

// One template, or a list of named ones of which "default" is the chat's.
std::string ReadTemplate(Fields& fields, const Value& config) {
  const Value* value = config.Find("chat_template");
  if (value == nullptr || value->AsArray() == nullptr) return fields.TextOr("chat_template", "");
  for (const Value& item : *value->AsArray()) {
    Fields inner(absl::StrCat(fields.where(), ": chat_template"), item);
    const std::string name = inner.Text("name");
    const std::string text = inner.Text("template");
    fields.Fail(inner.status());
    if (name == "default") return text;
  }
  return std::string();
}

// The id of a token by tokenizer_config.json's added_tokens_decoder: {"2": {"content": "</s>"}}.
std::optional<int64_t> FindDecoderId(const Value& config, const std::string& token) {
  const Value* decoder = config.Find("added_tokens_decoder");
  if (decoder == nullptr || decoder->AsObject() == nullptr) return std::nullopt;
  for (const Value::Member& member : *decoder->AsObject()) {
    const Value* content = member.value.Find("content");
    int64_t id = 0;
    if (content != nullptr && content->AsText() != nullptr && *content->AsText() == token &&
        absl::SimpleAtoi(member.key, &id)) {
      return id;
    }
  }
  return std::nullopt;
}

// The same by tokenizer.json's added_tokens: [{"id": 2, "content": "</s>"}].
std::optional<int64_t> FindAddedId(const Value& added_tokens, const std::string& token) {
  if (added_tokens.AsArray() == nullptr) return std::nullopt;
  for (const Value& item : *added_tokens.AsArray()) {
    const Value* content = item.Find("content");
    const Value* id = item.Find("id");
    if (content != nullptr && content->AsText() != nullptr && *content->AsText() == token &&
        id != nullptr && id->AsInt() != nullptr) {
      return *id->AsInt();
    }
  }
  return std::nullopt;
}

absl::Status FindEosId(const Value& config, HfTokenizerFiles& out) {
  if (out.eos_token.empty()) return absl::OkStatus();
  out.eos_id = FindDecoderId(config, out.eos_token);
  if (out.eos_id.has_value() || !out.tokenizer.has_value()) return absl::OkStatus();
  const absl::StatusOr<Value> added =
      ParseJsonMember(kTokenizer, out.tokenizer->tokenizer_json, "added_tokens");
  if (added.ok()) out.eos_id = FindAddedId(*added, out.eos_token);
  return added.status();
}

absl::Status ReadConfigFields(const Value& config, HfTokenizerFiles& out) {
  Fields fields(kConfig, config);
  out.bos_token = ReadTokenText(fields, config, "bos_token");
  out.eos_token = ReadTokenText(fields, config, "eos_token");
  if (out.chat_template.empty()) out.chat_template = ReadTemplate(fields, config);
  const Value* length = config.Find("model_max_length");
  if (length != nullptr && length->AsInt() != nullptr && *length->AsInt() > 0 &&
      *length->AsInt() < kUnlimited) {
    out.model_max_length = *length->AsInt();
  }
  return fields.status();
}

// Files of transformers 4 may name their tokens only in special_tokens_map.json.
absl::Status ReadSpecialTokens(const std::string& directory, HfTokenizerFiles& out) {
  const absl::StatusOr<std::string> text = ReadIfPresent(directory, kSpecialTokens, kMaxTextBytes);
  if (!text.ok() || text->empty()) return text.status();
  const absl::StatusOr<Value> map = ParseJsonObject(kSpecialTokens, *text);
  if (!map.ok()) return map.status();
  Fields fields(kSpecialTokens, *map);
  if (out.bos_token.empty()) out.bos_token = ReadTokenText(fields, *map, "bos_token");
  if (out.eos_token.empty()) out.eos_token = ReadTokenText(fields, *map, "eos_token");
  return fields.status();
}

}  // namespace

absl::StatusOr<HfTokenizerFiles> ReadHfTokenizerFiles(const std::string& directory) {
  absl::StatusOr<std::string> tokenizer = ReadIfPresent(directory, kTokenizer, kMaxTokenizerBytes);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<std::string> config = ReadIfPresent(directory, kConfig, kMaxTextBytes);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::string> chat = ReadIfPresent(directory, kTemplate, kMaxTextBytes);
  if (!chat.ok()) return chat.status();
  if (!simdjson::validate_utf8(*chat)) return CorruptFile(kTemplate, "is not UTF-8");

  HfTokenizerFiles out;
  out.chat_template = *std::move(chat);
  Value config_value;
  if (!config->empty()) {
    absl::StatusOr<Value> parsed = ParseJsonObject(kConfig, *config);
    if (!parsed.ok()) return parsed.status();
    config_value = *std::move(parsed);
    if (absl::Status read = ReadConfigFields(config_value, out); !read.ok()) return read;
  }
  if (absl::Status read = ReadSpecialTokens(directory, out); !read.ok()) return read;
  if (!tokenizer->empty()) out.tokenizer = {*std::move(tokenizer), *std::move(config)};
  if (absl::Status found = FindEosId(config_value, out); !found.ok()) return found;
  return out;
}

}  // namespace nibble
