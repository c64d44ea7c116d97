// tokenizer.json's model: the vocabulary and the merges.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/status.h"
#include "engine/tokenizer/hugging_face.h"
#include "engine/tokenizer/json_fields.h"
#include "engine/tokenizer/merge_reader.h"

namespace nibble {
namespace {

using simdjson::dom::element;

absl::StatusOr<std::unique_ptr<Vocabulary>> ReadVocabulary(JsonFields& fields, bool byte_level,
                                                           size_t num_added) {
  const auto vocab = fields.Object("vocab");
  if (!vocab.has_value()) return fields.status();
  std::vector<Vocabulary::Entry> entries;
  for (const auto& [text, id] : *vocab) {
    int64_t value = -1;
    if (id.get(value) != simdjson::SUCCESS) {
      return CorruptFile(kTokenizerJson, absl::StrCat("model.vocab: the id of ", Quoted(text),
                                                      " is no whole number"));
    }
    entries.push_back({text, value});
  }
  absl::StatusOr<Vocabulary> vocabulary =
      Vocabulary::Make(kTokenizerJson, entries, byte_level, num_added);
  if (!vocabulary.ok()) return vocabulary.status();
  return std::make_unique<Vocabulary>(*std::move(vocabulary));
}

// The id of the model's unknown token. Errors: DATA_LOSS when the vocabulary lacks it.
absl::StatusOr<int32_t> ReadUnknown(const std::string& text, const Vocabulary& vocabulary) {
  const int32_t id = vocabulary.FindSpelled(text);
  if (id >= 0) return id;
  return CorruptFile(kTokenizerJson,
                     absl::StrCat("model.unk_token ", Quoted(text), " is not in model.vocab"));
}

absl::StatusOr<MergeTable> ReadMerges(JsonFields& fields, const Vocabulary& vocabulary) {
  const auto merges = fields.Array("merges");
  if (!merges.has_value()) return fields.status();
  size_t count = 0;  // array.size() saturates at 2^24
  for (auto it = merges->begin(); it != merges->end(); ++it) ++count;
  MergeReader reader(kTokenizerJson, &vocabulary, count);
  for (const element merge : *merges) {
    std::string_view text, left, right;
    simdjson::dom::array pair;
    absl::Status status;
    if (merge.get(text) == simdjson::SUCCESS) {
      status = reader.Add(text);
    } else if (merge.get(pair) == simdjson::SUCCESS && pair.size() == 2 &&
               pair.at(0).get(left) == simdjson::SUCCESS &&
               pair.at(1).get(right) == simdjson::SUCCESS) {
      status = reader.Add(left, right);
    } else {
      status = CorruptFile(kTokenizerJson, absl::StrCat("merge ", reader.num_merges(),
                                                        " is neither a text nor a pair of texts"));
    }
    if (!status.ok()) return status;
  }
  return reader.Take();
}

absl::Status CheckBpeOptions(JsonFields& fields, bool byte_level) {
  const auto refuse = [](std::string_view what) {
    return UnsupportedModel(kTokenizerJson, absl::StrCat("model BPE ", Str(what)));
  };
  if (fields.BoolOr("byte_fallback", false)) return refuse("with byte_fallback");
  if (!fields.TextOrNull("continuing_subword_prefix").value_or("").empty()) {
    return refuse("with continuing_subword_prefix");
  }
  if (!fields.TextOrNull("end_of_word_suffix").value_or("").empty()) {
    return refuse("with end_of_word_suffix");
  }
  if (const auto dropout = fields.Find("dropout")) {
    double rate = 0;
    if (dropout->get(rate) != simdjson::SUCCESS) fields.FailAt("dropout", "is no number");
    if (rate != 0) return refuse("with dropout");
  }
  if (!fields.status().ok()) return fields.status();
  return byte_level ? absl::OkStatus() : refuse("without the pre-tokenizer ByteLevel");
}

absl::StatusOr<ModelPart> ReadBpe(JsonFields& fields, bool byte_level, size_t num_added) {
  if (absl::Status status = CheckBpeOptions(fields, byte_level); !status.ok()) return status;
  ModelPart part;
  auto vocabulary = ReadVocabulary(fields, true, num_added);
  if (!vocabulary.ok()) return vocabulary.status();
  part.vocabulary = *std::move(vocabulary);
  BpeOptions options;
  options.ignore_merges = fields.BoolOr("ignore_merges", false);
  options.fuse_unknown = fields.BoolOr("fuse_unk", false);
  if (const auto unknown = fields.TextOrNull("unk_token")) {
    const auto id = ReadUnknown(*unknown, *part.vocabulary);
    if (!id.ok()) return id.status();
    options.unknown_id = *id;
  }
  absl::StatusOr<MergeTable> merges = ReadMerges(fields, *part.vocabulary);
  if (!merges.ok()) return merges.status();
  if (!fields.status().ok()) return fields.status();
  part.model = std::make_unique<const TokenModel>(
      BpeModel(part.vocabulary.get(), *std::move(merges), options));
  return part;
}

absl::StatusOr<ModelPart> ReadWordPiece(JsonFields& fields, bool byte_level, size_t num_added) {
  if (byte_level) {
    return UnsupportedModel(kTokenizerJson, "model WordPiece after the pre-tokenizer ByteLevel");
  }
  ModelPart part;
  auto vocabulary = ReadVocabulary(fields, false, num_added);
  if (!vocabulary.ok()) return vocabulary.status();
  part.vocabulary = *std::move(vocabulary);
  WordPieceOptions options;
  options.continuing_prefix = fields.Text("continuing_subword_prefix");
  options.max_word_characters = fields.Int("max_input_chars_per_word", 0, INT32_MAX);
  const auto id = ReadUnknown(fields.Text("unk_token"), *part.vocabulary);
  if (!fields.status().ok()) return fields.status();
  if (!id.ok()) return id.status();
  options.unknown_id = *id;
  part.model =
      std::make_unique<const TokenModel>(WordPieceModel(part.vocabulary.get(), std::move(options)));
  return part;
}

}  // namespace

absl::StatusOr<ModelPart> ReadModel(element component, bool byte_level, size_t num_added) {
  JsonFields fields(kTokenizerJson, "model", component);
  // Old files do not say; only BPE has merges.
  const std::string type =
      fields.TextOrNull("type").value_or(fields.Has("merges") ? "BPE" : "WordPiece");
  if (!fields.status().ok()) return fields.status();
  if (type == "BPE") return ReadBpe(fields, byte_level, num_added);
  if (type == "WordPiece") return ReadWordPiece(fields, byte_level, num_added);
  return UnsupportedModel(kTokenizerJson, absl::StrCat("model ", Quoted(type)));
}

}  // namespace nibble
