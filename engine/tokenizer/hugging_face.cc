// The frame of tokenizer.json: reads the parts in an order that names what we do not have before it
// reads what is large.
#include "engine/tokenizer/hugging_face.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/loader/json.h"
#include "engine/status.h"
#include "engine/tokenizer/json_fields.h"

namespace nibble {
namespace {

using simdjson::dom::element;

constexpr char kConfig[] = "tokenizer_config.json";

// What a token of this content gets as id: the model's, or the next free one.
absl::Status PlaceToken(int64_t id, const std::string& content, int64_t* next_id,
                        Vocabulary* vocabulary) {
  const int32_t in_model = vocabulary->FindSpelled(content);
  const int64_t wanted = in_model >= 0 ? in_model : *next_id;
  if (id != wanted) {
    return CorruptFile(kTokenizerJson, absl::StrCat("added token ", Quoted(content), " has id ", id,
                                                    ", by the vocabulary it has ", wanted));
  }
  if (in_model >= 0) return absl::OkStatus();
  ++*next_id;
  return vocabulary->Add(content, id);
}

absl::StatusOr<std::vector<AddedTokenSpec>> ReadAddedTokens(const std::vector<element>& list,
                                                            Vocabulary* vocabulary) {
  std::vector<AddedTokenSpec> specs;
  int64_t next_id = vocabulary->num_model_tokens();
  for (const element item : list) {
    JsonFields fields(kTokenizerJson, absl::StrCat("added_tokens[", specs.size(), "]"), item);
    AddedTokenSpec spec;
    const int64_t id = fields.Int("id", 0, INT32_MAX);
    spec.token.content = fields.Text("content");
    spec.token.single_word = fields.Bool("single_word");
    spec.token.strip_left = fields.Bool("lstrip");
    spec.token.strip_right = fields.Bool("rstrip");
    spec.normalized = fields.Bool("normalized");
    spec.special = fields.Bool("special");
    const size_t bytes = spec.token.content.size();
    if (bytes == 0 || bytes > AddedTokens::kMaxContentBytes) {
      fields.FailAt("content", absl::StrCat("has ", bytes, " bytes, wanted 1…",
                                            AddedTokens::kMaxContentBytes));
    }
    if (!fields.status().ok()) return fields.status();
    absl::Status status = PlaceToken(id, spec.token.content, &next_id, vocabulary);
    if (!status.ok()) return status;
    spec.token.id = static_cast<int32_t>(id);
    specs.push_back(std::move(spec));
  }
  return specs;
}

// The id of tokenizer_config.json's bos_token or eos_token, a text or an object with a content;
// none when it names no token of the vocabulary.
absl::StatusOr<std::optional<int32_t>> ReadNamedToken(const std::string& config,
                                                      std::string_view key,
                                                      const Vocabulary& vocabulary) {
  const absl::StatusOr<Value> member = ParseJsonMember(kConfig, config, key);
  if (!member.ok()) return member.status();
  if (member->is_null()) return std::nullopt;
  const Value* content = member->AsObject() != nullptr ? member->Find("content") : &*member;
  const std::string* text = content == nullptr ? nullptr : content->AsText();
  if (text == nullptr) {
    return CorruptFile(kConfig, absl::StrCat(Str(key), " is ", member->Describe(),
                                             ", wanted a text or an object with a content"));
  }
  const int32_t added = vocabulary.Find(*text, Vocabulary::Kind::kAdded);
  const int32_t id = added >= 0 ? added : vocabulary.FindSpelled(*text);
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

absl::Status ReadConfig(const std::string& config, const Vocabulary& vocabulary,
                        PipelineParts* parts) {
  if (config.empty()) return absl::OkStatus();
  const auto bos = ReadNamedToken(config, "bos_token", vocabulary);
  if (!bos.ok()) return bos.status();
  const auto eos = ReadNamedToken(config, "eos_token", vocabulary);
  if (!eos.ok()) return eos.status();
  parts->bos_id = *bos;
  parts->eos_id = *eos;
  return absl::OkStatus();
}

absl::Status ReadComponents(JsonFields& document, PipelineParts* parts, bool* byte_level) {
  auto normalizer = ReadNormalizer(document.Find("normalizer"));
  if (!normalizer.ok()) return normalizer.status();
  parts->normalizer = *normalizer;
  auto pre_tokenizer = ReadPreTokenizer(document.Find("pre_tokenizer"));
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  parts->pre_tokenizer = std::move(pre_tokenizer->pre_tokenizer);
  *byte_level = pre_tokenizer->byte_level;
  auto post_processor = ReadPostProcessor(document.Find("post_processor"));
  if (!post_processor.ok()) return post_processor.status();
  parts->post_processor = *std::move(post_processor);
  auto decoder = ReadDecoder(document.Find("decoder"));
  if (!decoder.ok()) return decoder.status();
  parts->decoder = *std::move(decoder);
  if (*byte_level == (parts->decoder.kind == Decoder::Kind::kByteLevel)) return absl::OkStatus();
  return UnsupportedModel(kTokenizerJson,
                          "a ByteLevel pre-tokenizer without a ByteLevel decoder, or the reverse");
}

}  // namespace

absl::StatusOr<PipelineParts> ReadHuggingFace(const HuggingFaceTokenizer& files) {
  simdjson::dom::parser parser;
  element root;
  const simdjson::error_code code = parser.parse(files.tokenizer_json).get(root);
  if (code != simdjson::SUCCESS) {
    return CorruptFile(kTokenizerJson,
                       absl::StrCat("is not valid JSON: ", simdjson::error_message(code)));
  }
  JsonFields document(kTokenizerJson, "", root);
  const std::string version = document.TextOrNull("version").value_or("1.0");
  const auto model_element = document.Find("model");
  if (!model_element.has_value()) document.FailAt("model", "is missing");
  std::vector<element> added;
  if (document.Has("added_tokens")) added = document.Elements("added_tokens");
  if (!document.status().ok()) return document.status();
  if (version != "1.0") {
    return UnsupportedModel(kTokenizerJson, absl::StrCat("version ", Quoted(version)));
  }
  PipelineParts parts;
  bool byte_level = false;
  if (absl::Status status = ReadComponents(document, &parts, &byte_level); !status.ok()) {
    return status;
  }
  absl::StatusOr<ModelPart> model = ReadModel(*model_element, byte_level, added.size());
  if (!model.ok()) return model.status();
  auto specs = ReadAddedTokens(added, model->vocabulary.get());
  if (!specs.ok()) return specs.status();
  parts.added_tokens = *std::move(specs);
  model->vocabulary->Shrink();
  absl::Status status = ReadConfig(files.tokenizer_config_json, *model->vocabulary, &parts);
  if (!status.ok()) return status;
  parts.vocabulary = std::move(model->vocabulary);
  parts.model = std::move(model->model);
  if (status = CheckParts(kTokenizerJson, parts); !status.ok()) return status;
  return parts;
}

}  // namespace nibble
