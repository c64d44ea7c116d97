// One row per pipeline, beside which engine/tokenizer/gguf_pipeline.cc is the same in our own
// terms. Every token of GGUF is the model's: those that Hugging Face keeps outside of it have the
// same ids and are found first all the same.
#include "engine/quantize/hugging_face_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/quantize/hugging_face_json.h"
#include "engine/tokenizer/gguf_pipeline.h"

namespace nibble {
namespace {

// tokenizer.ggml.token_type of the tokens that are found before anything else.
constexpr int32_t kUnknown = 2;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;

constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct FormRow {
  std::array<std::string_view, 4> names;    // of tokenizer.ggml.pre
  std::array<std::string_view, 3> regexes;  // of the steps Split; none: ByteLevel's own
  bool digits = false;                      // each by itself, before anything else
  bool only_matches = false;                // Split drops what does not match
  bool nfc = false;
  bool ignore_merges = false;
  bool add_bos = false;       // when the metadata do not say
  bool trim_offsets = false;  // by the post-processor
};

constexpr FormRow kRows[] = {
    {.names = {"gpt-2", "phi-2"}, .regexes = {}},
    {.names = {"smollm", "starcoder", "refact"}, .regexes = {}, .digits = true},
    {.names = {"command-r"}, .regexes = {}, .digits = true, .nfc = true, .add_bos = true},
    {.names = {"llama-bpe", "llama3", "llama-v3"},
     .regexes = {kLlama3},
     .ignore_merges = true,
     .add_bos = true,
     .trim_offsets = true},
    {.names = {"qwen2", "deepseek-r1-qwen"}, .regexes = {kQwen2}, .nfc = true},
    {.names = {"deepseek-v3"}, .regexes = {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepSeek}},
    {.names = {"gpt-4o"}, .regexes = {kO200k}, .only_matches = true},
    {.names = {"tekken"}, .regexes = {kTekken}, .ignore_merges = true, .add_bos = true},
};

const FormRow* FindRow(std::string_view name) {
  for (const FormRow& row : kRows) {
    if (std::find(row.names.begin(), row.names.end(), name) != row.names.end()) return &row;
  }
  return nullptr;
}

Value ByteLevel(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return json::Object({{"type", json::Text("ByteLevel")},
                       {"add_prefix_space", json::Flag(add_prefix_space)},
                       {"trim_offsets", json::Flag(trim_offsets)},
                       {"use_regex", json::Flag(use_regex)}});
}

Value Sequence(std::string_view list_key, Value::Array components) {
  if (components.size() == 1) return components[0];
  return json::Object({{"type", json::Text("Sequence")},
                       {std::string(list_key), json::Array(std::move(components))}});
}

Value PreTokenizerForm(const FormRow& row) {
  Value::Array steps;
  if (row.digits) {
    steps.push_back(
        json::Object({{"type", json::Text("Digits")}, {"individual_digits", json::Flag(true)}}));
  }
  for (const std::string_view regex : row.regexes) {
    if (regex.empty()) continue;
    steps.push_back(
        json::Object({{"type", json::Text("Split")},
                      {"pattern", json::Object({{"Regex", json::Text(regex)}})},
                      {"behavior", json::Text(row.only_matches ? "Removed" : "Isolated")},
                      {"invert", json::Flag(row.only_matches)}}));
  }
  steps.push_back(ByteLevel(false, true, row.regexes[0].empty()));
  return Sequence("pretokenizers", std::move(steps));
}

// Of a TemplateProcessing.
Value Piece(std::string_view kind, std::string_view id, int64_t type_id) {
  return json::Object({{std::string(kind), json::Object({{"id", json::Text(id)},
                                                         {"type_id", json::Integer(type_id)}})}});
}

// The tokens put before and after a text; null: none.
struct Around {
  const std::string* bos = nullptr;
  const std::string* eos = nullptr;
};

void AddSequence(std::string_view id, int64_t type_id, const Around& around, Value::Array* pieces) {
  if (around.bos != nullptr) pieces->push_back(Piece("SpecialToken", *around.bos, type_id));
  pieces->push_back(Piece("Sequence", id, type_id));
  if (around.eos != nullptr) pieces->push_back(Piece("SpecialToken", *around.eos, type_id));
}

Value TemplateForm(const GgufTokenizer& fields, const Around& around) {
  Value::Array single, pair;
  AddSequence("A", 0, around, &single);
  AddSequence("A", 0, around, &pair);
  AddSequence("B", 1, around, &pair);
  Value::Object tokens;
  const auto add = [&](const std::string& token, int32_t id) {
    tokens.push_back({token, json::Object({{"id", json::Text(token)},
                                           {"ids", json::Array({json::Integer(id)})},
                                           {"tokens", json::Array({json::Text(token)})}})});
  };
  if (around.bos != nullptr) add(*around.bos, *fields.bos_id);
  if (around.eos != nullptr && around.eos != around.bos) add(*around.eos, *fields.eos_id);
  return json::Object({{"type", json::Text("TemplateProcessing")},
                       {"single", json::Array(std::move(single))},
                       {"pair", json::Array(std::move(pair))},
                       {"special_tokens", json::Object(std::move(tokens))}});
}

Value PostProcessorForm(const GgufTokenizer& fields, const FormRow& row, const Around& around) {
  const bool has_template = around.bos != nullptr || around.eos != nullptr;
  Value::Array steps;
  if (row.trim_offsets || !has_template) steps.push_back(ByteLevel(true, row.trim_offsets, true));
  if (has_template) steps.push_back(TemplateForm(fields, around));
  return Sequence("processors", std::move(steps));
}

Value AddedTokensForm(const GgufTokenizer& fields) {
  Value::Array tokens;
  for (size_t id = 0; id < fields.token_types.size(); ++id) {
    const int32_t type = fields.token_types[id];
    if (type != kUnknown && type != kControl && type != kUserDefined) continue;
    tokens.push_back(json::Object({{"id", json::Integer(static_cast<int64_t>(id))},
                                   {"content", json::Text(fields.tokens[id])},
                                   {"single_word", json::Flag(false)},
                                   {"lstrip", json::Flag(false)},
                                   {"rstrip", json::Flag(false)},
                                   {"normalized", json::Flag(false)},
                                   {"special", json::Flag(type != kUserDefined)}}));
  }
  return json::Array(std::move(tokens));
}

// Merges as pairs: of merges as texts, tokenizers drops those that begin with "#version".
Value ModelForm(const GgufTokenizer& fields, const FormRow& row) {
  Value::Object vocab;
  vocab.reserve(fields.tokens.size());
  for (const std::string& token : fields.tokens) {
    vocab.push_back({token, json::Integer(static_cast<int64_t>(vocab.size()))});
  }
  Value::Array merges;
  merges.reserve(fields.merges.size());
  for (const std::string& merge : fields.merges) {
    const size_t space = merge.find(' ');  // the only one
    merges.push_back(
        json::Array({json::Text(merge.substr(0, space)), json::Text(merge.substr(space + 1))}));
  }
  return json::Object({{"type", json::Text("BPE")},
                       {"dropout", json::Null()},
                       {"unk_token", json::Null()},
                       {"continuing_subword_prefix", json::Null()},
                       {"end_of_word_suffix", json::Null()},
                       {"fuse_unk", json::Flag(false)},
                       {"byte_fallback", json::Flag(false)},
                       {"ignore_merges", json::Flag(row.ignore_merges)},
                       {"vocab", json::Object(std::move(vocab))},
                       {"merges", json::Array(std::move(merges))}});
}

Value NormalizerForm(const FormRow& row) {
  return row.nfc ? json::Object({{"type", json::Text("NFC")}}) : json::Null();
}

}  // namespace

absl::StatusOr<HuggingFaceForm> ToHuggingFace(const GgufTokenizer& fields) {
  // Every rule that what follows relies on: text that is UTF-8, tokens once, ids that exist.
  if (const auto parts = ReadGguf(fields); !parts.ok()) return parts.status();
  const FormRow* row = FindRow(fields.pre);
  if (row == nullptr) {
    return UnsupportedModel(
        "GGUF tokenizer",
        absl::StrCat("tokenizer.ggml.pre ", Quoted(fields.pre), " has no form in tokenizer.json"));
  }
  HuggingFaceForm form;
  form.adds_bos = fields.add_bos.value_or(row->add_bos);
  form.adds_eos = fields.add_eos.value_or(false);
  Around around;
  if (form.adds_bos) around.bos = &fields.tokens[static_cast<size_t>(*fields.bos_id)];
  if (form.adds_eos) around.eos = &fields.tokens[static_cast<size_t>(*fields.eos_id)];
  form.tokenizer_json =
      json::Write(json::Object({{"version", json::Text("1.0")},
                                {"truncation", json::Null()},
                                {"padding", json::Null()},
                                {"added_tokens", AddedTokensForm(fields)},
                                {"normalizer", NormalizerForm(*row)},
                                {"pre_tokenizer", PreTokenizerForm(*row)},
                                {"post_processor", PostProcessorForm(fields, *row, around)},
                                {"decoder", ByteLevel(true, true, true)},
                                {"model", ModelForm(fields, *row)}}));
  return form;
}

}  // namespace nibble
