// The small files around tokenizer.json.
#include "engine/quantize/hugging_face_files.h"

#include <optional>
#include <utility>

#include "engine/quantize/hugging_face_json.h"
#include "engine/quantize/hugging_face_token_ids.h"
#include "engine/quantize/hugging_face_tokenizer.h"

namespace nibble {
namespace {

Value TokenText(const GgufTokenizer& fields, std::optional<int32_t> id) {
  return id.has_value() ? json::Text(fields.tokens[static_cast<size_t>(*id)]) : json::Null();
}

// The class is transformers' for a tokenizer.json that is taken as it is.
std::string TokenizerConfig(const Checkpoint& checkpoint, const HuggingFaceForm& form) {
  const GgufTokenizer& fields = *checkpoint.gguf_tokenizer();
  Value::Object config = {{"tokenizer_class", json::Text("PreTrainedTokenizerFast")},
                          {"add_bos_token", json::Flag(form.adds_bos)},
                          {"add_eos_token", json::Flag(form.adds_eos)},
                          {"bos_token", TokenText(fields, fields.bos_id)},
                          {"eos_token", TokenText(fields, fields.eos_id)},
                          {"pad_token", TokenText(fields, fields.pad_id)},
                          {"unk_token", TokenText(fields, fields.unk_id)},
                          {"clean_up_tokenization_spaces", json::Flag(false)},
                          {"model_max_length", json::Integer(checkpoint.config().max_positions)}};
  if (!checkpoint.chat_template().empty()) {
    config.push_back({"chat_template", json::Text(checkpoint.chat_template())});
  }
  return json::Write(json::Object(std::move(config)));
}

// One id, a list of them, or null.
Value EosIds(const ModelConfig& config) {
  Value::Array ids;
  for (const int32_t id : config.generation.eos_token_ids) ids.push_back(json::Integer(id));
  if (ids.empty()) return json::Null();
  return ids.size() == 1 ? ids[0] : json::Array(std::move(ids));
}

}  // namespace

Value::Object TokenIds(const Checkpoint& checkpoint) {
  std::optional<int32_t> bos, pad;
  if (checkpoint.gguf_tokenizer().has_value()) {
    bos = checkpoint.gguf_tokenizer()->bos_id;
    pad = checkpoint.gguf_tokenizer()->pad_id;
  }
  const auto value = [](std::optional<int32_t> id) {
    return id.has_value() ? json::Integer(*id) : json::Null();
  };
  return {{"bos_token_id", value(bos)},
          {"eos_token_id", EosIds(checkpoint.config())},
          {"pad_token_id", value(pad)}};
}

absl::StatusOr<std::vector<TextFile>> HuggingFaceTokenizerFiles(const Checkpoint& checkpoint) {
  std::vector<TextFile> files;
  if (!checkpoint.gguf_tokenizer().has_value()) return files;
  absl::StatusOr<HuggingFaceForm> form = ToHuggingFace(*checkpoint.gguf_tokenizer());
  if (!form.ok()) return form.status();
  files.push_back({"tokenizer_config.json", TokenizerConfig(checkpoint, *form)});
  files.push_back({"tokenizer.json", std::move(form->tokenizer_json)});
  files.push_back({"generation_config.json", json::Write(json::Object(TokenIds(checkpoint)))});
  return files;
}

}  // namespace nibble
