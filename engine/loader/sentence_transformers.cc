// See sentence_transformers.h.
#include "engine/loader/sentence_transformers.h"

#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"
#include "engine/loader/json.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/value.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr char kModules[] = "modules.json";
constexpr int64_t kMaxFileBytes = 4 << 20;

struct PoolingMode {
  std::string_view key;   // in the older files, a bool
  std::string_view name;  // in the newer ones
  Pooling pooling;
  bool supported;
};
constexpr std::array<PoolingMode, 6> kPoolingModes = {{
    {"pooling_mode_mean_tokens", "mean", Pooling::kMean, true},
    {"pooling_mode_cls_token", "cls", Pooling::kCls, true},
    {"pooling_mode_lasttoken", "lasttoken", Pooling::kLast, true},
    {"pooling_mode_max_tokens", "max", Pooling::kMean, false},
    {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::kMean, false},
    {"pooling_mode_weightedmean_tokens", "weightedmean", Pooling::kMean, false},
}};

absl::StatusOr<Value> ReadObject(const std::string& directory, const std::string& file) {
  const absl::StatusOr<std::string> text =
      ReadTextFile(absl::StrCat(directory, "/", file), kMaxFileBytes);
  if (!text.ok()) return text.status();
  return ParseJsonObject(file, *text);
}

// A module's folder: nothing, or one plain name below the model's.
bool IsPlainFolder(std::string_view path) {
  return path.find('/') == std::string_view::npos && path.find('\0') == std::string_view::npos &&
         path != "." && path != "..";
}

// Exactly one mode that we have.
void ReadPoolingMode(Fields& fields, Pooling& out) {
  std::vector<const PoolingMode*> chosen;
  const std::string by_name = fields.TextOr("pooling_mode", "");
  for (const PoolingMode& mode : kPoolingModes) {
    const bool named = !by_name.empty() && by_name == mode.name;
    if (named || fields.BoolOr(mode.key, false)) chosen.push_back(&mode);
  }
  if (chosen.size() == 1 && chosen[0]->supported) {
    out = chosen[0]->pooling;
    return;
  }
  std::string names;
  for (const PoolingMode* mode : chosen) {
    absl::StrAppend(&names, names.empty() ? "" : "+", Str(mode->name));
  }
  if (names.empty()) names = by_name.empty() ? "none" : by_name;
  fields.Fail(UnsupportedModel(fields.where(),
                               absl::StrCat("pooling ", Quoted(names),
                                            " is not supported; supported: mean, cls, lasttoken")));
}

absl::Status ReadPooling(const std::string& directory, const std::string& folder,
                         SentenceModules& out) {
  const std::string file = folder.empty() ? "config.json" : absl::StrCat(folder, "/config.json");
  const absl::StatusOr<Value> config = ReadObject(directory, file);
  if (!config.ok()) return config.status();
  Fields fields(file, *config);
  ReadPoolingMode(fields, out.embedding.pooling);
  const std::string_view width =
      fields.Has("embedding_dimension") ? "embedding_dimension" : "word_embedding_dimension";
  out.pooled_width = fields.IntOr(width, 0, 1, kMaxWidth);
  if (!fields.BoolOr("include_prompt", true)) {
    fields.Fail(UnsupportedModel(file, "include_prompt false is not supported"));
  }
  return fields.status();
}

// modules.json is a list in the order of computation: Transformer, Pooling and perhaps Normalize.
absl::Status ReadModule(const std::string& directory, const Value& item, size_t index,
                        SentenceModules& out) {
  Fields fields(absl::StrCat(kModules, ": module ", index), item);
  const std::string type = fields.Text("type");
  const std::string path = fields.TextOr("path", "");
  if (!fields.status().ok()) return fields.status();
  if (!IsPlainFolder(path)) {
    return CorruptFile(fields.where(), absl::StrCat("has the path ", Quoted(path),
                                                    ", wanted a folder's plain name"));
  }
  const std::string name = type.substr(type.rfind('.') + 1);
  constexpr std::array<std::string_view, 3> kOrder = {"Transformer", "Pooling", "Normalize"};
  if (index >= kOrder.size() || name != kOrder[index]) {
    return UnsupportedModel(
        fields.where(), absl::StrCat("module ", Quoted(name),
                                     " in this place is not supported; "
                                     "supported: Transformer, Pooling, Normalize, in this order"));
  }
  if (index == 0) out.transformer_path = path;
  if (index == 1) return ReadPooling(directory, path, out);
  if (index == 2) out.embedding.normalize = true;
  return absl::OkStatus();
}

absl::Status ReadModules(const std::string& directory, SentenceModules& out) {
  const absl::StatusOr<std::string> text =
      ReadTextFile(absl::StrCat(directory, "/", kModules), kMaxFileBytes);
  if (!text.ok()) return text.status();
  const absl::StatusOr<Value> modules = ParseJson(kModules, *text);
  if (!modules.ok()) return modules.status();
  if (modules->AsArray() == nullptr) {
    return CorruptFile(kModules, absl::StrCat("is ", modules->Describe(), ", wanted an array"));
  }
  size_t index = 0;
  for (const Value& item : *modules->AsArray()) {
    absl::Status read = ReadModule(directory, item, index++, out);
    if (!read.ok()) return read;
  }
  if (index < 2) return UnsupportedModel(kModules, "has no Pooling module");
  out.embedding.present = true;
  return absl::OkStatus();
}

absl::Status ReadLimits(const std::string& directory, SentenceModules& out) {
  constexpr char kFile[] = "sentence_bert_config.json";
  const std::string folder =
      out.transformer_path.empty() ? directory : absl::StrCat(directory, "/", out.transformer_path);
  if (!PathExists(absl::StrCat(folder, "/", kFile))) return absl::OkStatus();
  const absl::StatusOr<Value> config = ReadObject(folder, kFile);
  if (!config.ok()) return config.status();
  Fields fields(kFile, *config);
  out.embedding.max_seq_length = fields.IntOr("max_seq_length", 0, 1, kMaxPositions);
  out.lower_cases = fields.BoolOr("do_lower_case", false);
  return fields.status();
}

constexpr char kPromptsFile[] = "config_sentence_transformers.json";

absl::Status AddPrompts(const Value& prompts, EmbeddingConfig& out) {
  for (const Value::Member& prompt : *prompts.AsObject()) {
    const std::string* text = prompt.value.AsText();
    if (text == nullptr) {
      return CorruptFile(kPromptsFile, absl::StrCat("prompt ", Quoted(prompt.key), " is ",
                                                    prompt.value.Describe(), ", wanted a string"));
    }
    out.prompts[prompt.key] = *text;
  }
  return absl::OkStatus();
}

absl::Status ReadPrompts(const std::string& directory, EmbeddingConfig& out) {
  if (!PathExists(absl::StrCat(directory, "/", kPromptsFile))) return absl::OkStatus();
  const absl::StatusOr<Value> config = ReadObject(directory, kPromptsFile);
  if (!config.ok()) return config.status();
  Fields fields(kPromptsFile, *config);
  const Value* prompts = fields.ObjectOrNull("prompts");
  if (prompts != nullptr) fields.Fail(AddPrompts(*prompts, out));
  out.default_prompt_name = fields.TextOr("default_prompt_name", "");
  if (!out.default_prompt_name.empty() && !out.prompts.contains(out.default_prompt_name)) {
    fields.Fail(InconsistentModel(
        kPromptsFile, absl::StrCat("default_prompt_name is ", Quoted(out.default_prompt_name),
                                   ", which is not among the prompts")));
  }
  return fields.status();
}

}  // namespace

absl::StatusOr<SentenceModules> ReadSentenceTransformers(const std::string& directory) {
  SentenceModules out;
  if (!PathExists(absl::StrCat(directory, "/", kModules))) return out;
  if (absl::Status status = ReadModules(directory, out); !status.ok()) return status;
  if (absl::Status status = ReadLimits(directory, out); !status.ok()) return status;
  if (absl::Status status = ReadPrompts(directory, out.embedding); !status.ok()) return status;
  return out;
}

}  // namespace nibble
