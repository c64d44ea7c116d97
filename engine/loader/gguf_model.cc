// A GGUF file, put together: config, tensors and the tokenizer's metadata.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/checkpoint_parts.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"
#include "engine/loader/gguf.h"
#include "engine/loader/gguf_config.h"

namespace nibble {
namespace {

// A token's id, absent when the file has none (or says -1, in either signedness). Must name one of
// the tokens.
std::optional<int32_t> ReadTokenId(Fields& fields, std::string_view key, size_t num_tokens) {
  constexpr int64_t kNone = 0xffffffff;
  const int64_t id = fields.IntOr(key, -1, -1, kNone);
  if (id == -1 || id == kNone) return std::nullopt;
  if (id >= static_cast<int64_t>(num_tokens)) {
    fields.Fail(InconsistentModel(
        fields.where(), absl::StrCat(std::string(key), " is ", id,
                                     ", but tokenizer.ggml.tokens has ", num_tokens, " tokens")));
  }
  return static_cast<int32_t>(id);
}

std::optional<bool> ReadFlag(Fields& fields, std::string_view key) {
  if (!fields.Has(key)) return std::nullopt;
  return fields.BoolOr(key, false);
}

absl::Status CheckCounts(const GgufFile& file, const GgufTokenizer& tokenizer, int64_t vocab) {
  const auto num_tokens = static_cast<int64_t>(tokenizer.tokens.size());
  if (num_tokens == 0 || num_tokens > vocab) {
    return InconsistentModel(file.name,
                             absl::StrCat("tokenizer.ggml.tokens has ", num_tokens,
                                          " tokens, the embedding has ", vocab, " rows"));
  }
  if (!tokenizer.token_types.empty() && tokenizer.token_types.size() != tokenizer.tokens.size()) {
    return InconsistentModel(
        file.name, absl::StrCat("tokenizer.ggml.token_type has ", tokenizer.token_types.size(),
                                " entries, tokenizer.ggml.tokens ", num_tokens));
  }
  return absl::OkStatus();
}

absl::Status ReadArrays(const GgufFile& file, GgufTokenizer& tokenizer) {
  absl::StatusOr<std::vector<std::string>> tokens = file.Strings("tokenizer.ggml.tokens");
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<std::vector<std::string>> merges = file.Strings("tokenizer.ggml.merges");
  if (!merges.ok()) return merges.status();
  absl::StatusOr<std::vector<int32_t>> types = file.Ints("tokenizer.ggml.token_type");
  if (!types.ok()) return types.status();
  tokenizer.tokens = *std::move(tokens);
  tokenizer.merges = *std::move(merges);
  tokenizer.token_types = *std::move(types);
  return absl::OkStatus();
}

std::string TokenText(const GgufTokenizer& tokenizer, std::optional<int32_t> id) {
  return id.has_value() ? tokenizer.tokens[static_cast<size_t>(*id)] : std::string();
}

absl::Status ReadTokenizer(const GgufFile& file, CheckpointParts& parts) {
  Fields fields(file.name, file.fields);
  parts.chat_template = fields.TextOr("tokenizer.chat_template", "");
  GgufTokenizer tokenizer;
  tokenizer.model = fields.TextOr("tokenizer.ggml.model", "");
  tokenizer.pre = fields.TextOr("tokenizer.ggml.pre", "");
  if (!fields.status().ok()) return fields.status();
  if (tokenizer.model.empty() || tokenizer.model == "none" || tokenizer.model == "no_vocab") {
    return absl::OkStatus();  // token ids only
  }
  if (absl::Status status = ReadArrays(file, tokenizer); !status.ok()) return status;
  if (absl::Status status = CheckCounts(file, tokenizer, parts.config.vocab); !status.ok()) {
    return status;
  }
  const size_t count = tokenizer.tokens.size();
  tokenizer.bos_id = ReadTokenId(fields, "tokenizer.ggml.bos_token_id", count);
  tokenizer.eos_id = ReadTokenId(fields, "tokenizer.ggml.eos_token_id", count);
  tokenizer.unk_id = ReadTokenId(fields, "tokenizer.ggml.unknown_token_id", count);
  tokenizer.pad_id = ReadTokenId(fields, "tokenizer.ggml.padding_token_id", count);
  tokenizer.add_bos = ReadFlag(fields, "tokenizer.ggml.add_bos_token");
  tokenizer.add_eos = ReadFlag(fields, "tokenizer.ggml.add_eos_token");
  const std::optional<int32_t> eot = ReadTokenId(fields, "tokenizer.ggml.eot_token_id", count);
  const std::optional<int32_t> eom = ReadTokenId(fields, "tokenizer.ggml.eom_token_id", count);
  if (!fields.status().ok()) return fields.status();
  for (const std::optional<int32_t> end : {tokenizer.eos_id, eot, eom}) {
    if (absl::Status status = AddEosId(file.name, end.value_or(-1), parts.config); !status.ok()) {
      return status;
    }
  }
  parts.bos_token = TokenText(tokenizer, tokenizer.bos_id);
  parts.eos_token = TokenText(tokenizer, tokenizer.eos_id);
  parts.gguf_tokenizer = std::move(tokenizer);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointParts> ReadGgufModel(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MappedFile>> mapped = MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  const absl::StatusOr<GgufFile> file = ParseGguf((*mapped)->name(), (*mapped)->bytes());
  if (!file.ok()) return file.status();
  absl::StatusOr<ModelConfig> config = ParseGgufConfig(*file);
  if (!config.ok()) return config.status();
  CheckpointParts parts;
  parts.config = *std::move(config);
  parts.config_source = file->name;
  parts.tensors = TranslateTensors(*file, parts.config);
  if (absl::Status status = ReadTokenizer(*file, parts); !status.ok()) return status;
  parts.files.push_back(*std::move(mapped));
  return parts;
}

}  // namespace nibble
