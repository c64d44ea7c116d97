// One row per pipeline: what Hugging Face's tokenizer.json of the models so named holds, under all
// the names that GGUF has for it.
#include "engine/tokenizer/gguf_pipeline.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/tokenizer/merge_reader.h"
#include "engine/tokenizer/utf8.h"

namespace nibble {
namespace {

constexpr char kFile[] = "GGUF tokenizer";

// tokenizer.ggml.token_type
constexpr int32_t kUnknown = 2;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;

struct PipelineRow {
  std::array<std::string_view, 4> names;  // of tokenizer.ggml.pre
  std::array<Scanner, 3> scanners;        // of the splitting steps, null: no more
  bool nfc = false;
  bool ignore_merges = false;
  bool add_bos = false;       // when the metadata do not say
  bool trim_offsets = false;  // by the post-processor
};

constexpr PipelineRow kRows[] = {
    {.names = {"gpt-2", "phi-2"}, .scanners = {ScanGpt2}},
    {.names = {"smollm", "starcoder", "refact"}, .scanners = {ScanNumericCharacter, ScanGpt2}},
    {.names = {"command-r"},
     .scanners = {ScanNumericCharacter, ScanGpt2},
     .nfc = true,
     .add_bos = true},
    {.names = {"llama-bpe", "llama3", "llama-v3"},
     .scanners = {ScanLlama3},
     .ignore_merges = true,
     .add_bos = true,
     .trim_offsets = true},
    {.names = {"qwen2", "deepseek-r1-qwen"}, .scanners = {ScanQwen2}, .nfc = true},
    {.names = {"deepseek-v3"}, .scanners = {ScanThreeNumbers, ScanHanAndKana, ScanDeepSeek}},
    {.names = {"gpt-4o"}, .scanners = {ScanO200k}},
    {.names = {"tekken"}, .scanners = {ScanTekken}, .ignore_merges = true, .add_bos = true},
};

const PipelineRow* FindRow(std::string_view name) {
  for (const PipelineRow& row : kRows) {
    if (!name.empty() && std::find(row.names.begin(), row.names.end(), name) != row.names.end()) {
      return &row;
    }
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<const Vocabulary>> ReadVocabulary(const GgufTokenizer& fields) {
  std::vector<Vocabulary::Entry> entries;
  entries.reserve(fields.tokens.size());
  for (const std::string& token : fields.tokens) {
    if (utf8::FindInvalid(token) != utf8::kNone) {
      return CorruptFile(kFile, absl::StrCat("token ", entries.size(), " is not valid UTF-8"));
    }
    entries.push_back({token, static_cast<int64_t>(entries.size())});
  }
  if (entries.empty()) return CorruptFile(kFile, "tokenizer.ggml.tokens is empty");
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Make(kFile, entries, true, 0);
  if (!vocabulary.ok()) return vocabulary.status();
  vocabulary->Shrink();
  return std::make_unique<const Vocabulary>(*std::move(vocabulary));
}

absl::StatusOr<MergeTable> ReadMerges(const GgufTokenizer& fields, const Vocabulary& vocabulary) {
  MergeReader reader(kFile, &vocabulary, fields.merges.size());
  for (const std::string& merge : fields.merges) {
    if (utf8::FindInvalid(merge) != utf8::kNone) {
      return CorruptFile(kFile, absl::StrCat("merge ", reader.num_merges(), " is not valid UTF-8"));
    }
    if (absl::Status status = reader.Add(merge); !status.ok()) return status;
  }
  return reader.Take();
}

// Control tokens are special added tokens, user-defined ones plain added tokens.
absl::StatusOr<std::vector<AddedTokenSpec>> ReadAddedTokens(const GgufTokenizer& fields) {
  std::vector<AddedTokenSpec> specs;
  if (!fields.token_types.empty() && fields.token_types.size() != fields.tokens.size()) {
    return CorruptFile(kFile, absl::StrCat("has ", fields.tokens.size(), " tokens, but ",
                                           fields.token_types.size(), " token types"));
  }
  for (size_t id = 0; id < fields.token_types.size(); ++id) {
    const int32_t type = fields.token_types[id];
    if (type != kUnknown && type != kControl && type != kUserDefined) continue;
    const std::string& content = fields.tokens[id];
    if (content.empty() || content.size() > AddedTokens::kMaxContentBytes) {
      return CorruptFile(kFile,
                         absl::StrCat("token ", id, " of type ", type, " has ", content.size(),
                                      " bytes, wanted 1…", AddedTokens::kMaxContentBytes));
    }
    AddedTokenSpec spec;
    spec.token.content = content;
    spec.token.id = static_cast<int32_t>(id);
    spec.special = type != kUserDefined;
    specs.push_back(std::move(spec));
  }
  return specs;
}

absl::StatusOr<PostProcessor> MakePostProcessor(const GgufTokenizer& fields,
                                                const PipelineRow& row) {
  PostStep step;
  step.trim_offsets = row.trim_offsets;
  step.add_prefix_space = true;
  if (fields.add_bos.value_or(row.add_bos)) {
    if (!fields.bos_id.has_value()) {
      return CorruptFile(kFile, "tokenizer.ggml.add_bos_token without bos_token_id");
    }
    step.before.push_back(*fields.bos_id);
  }
  if (fields.add_eos.value_or(false)) {
    if (!fields.eos_id.has_value()) {
      return CorruptFile(kFile, "tokenizer.ggml.add_eos_token without eos_token_id");
    }
    step.after.push_back(*fields.eos_id);
  }
  return PostProcessor({step});
}

PreTokenizer MakePreTokenizer(const PipelineRow& row) {
  std::vector<SplitStep> steps;
  for (const Scanner scanner : row.scanners) {
    if (scanner != nullptr) steps.push_back({.scanner = scanner});
  }
  return PreTokenizer(std::move(steps));
}

}  // namespace

absl::StatusOr<PipelineParts> ReadGguf(const GgufTokenizer& fields) {
  if (fields.model != "gpt2") {
    return UnsupportedModel(kFile, absl::StrCat("tokenizer.ggml.model ", Quoted(fields.model)));
  }
  const PipelineRow* row = FindRow(fields.pre);
  if (row == nullptr) {
    return UnsupportedModel(kFile, absl::StrCat("tokenizer.ggml.pre ", Quoted(fields.pre)));
  }
  PipelineParts parts;
  auto vocabulary = ReadVocabulary(fields);
  if (!vocabulary.ok()) return vocabulary.status();
  parts.vocabulary = *std::move(vocabulary);
  absl::StatusOr<MergeTable> merges = ReadMerges(fields, *parts.vocabulary);
  if (!merges.ok()) return merges.status();
  parts.model = std::make_unique<const TokenModel>(
      BpeModel(parts.vocabulary.get(), *std::move(merges), {.ignore_merges = row->ignore_merges}));
  auto added_tokens = ReadAddedTokens(fields);
  if (!added_tokens.ok()) return added_tokens.status();
  parts.added_tokens = *std::move(added_tokens);
  auto post_processor = MakePostProcessor(fields, *row);
  if (!post_processor.ok()) return post_processor.status();
  parts.post_processor = *std::move(post_processor);
  if (row->nfc) parts.normalizer = Normalizer::Nfc();
  parts.pre_tokenizer = MakePreTokenizer(*row);
  parts.bos_id = fields.bos_id;
  parts.eos_id = fields.eos_id;
  if (absl::Status status = CheckParts(kFile, parts); !status.ok()) return status;
  return parts;
}

}  // namespace nibble
