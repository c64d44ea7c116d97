// The small parts of tokenizer.json. What is not here is refused by its name.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/status.h"
#include "engine/tokenizer/hugging_face.h"
#include "engine/tokenizer/json_fields.h"

namespace nibble {
namespace {

using simdjson::dom::element;

constexpr int kMaxDepth = 8;  // of sequences in sequences

absl::Status Unsupported(std::string_view slot, std::string_view what) {
  return UnsupportedModel(kTokenizerJson, absl::StrCat(Str(slot), " ", Str(what)));
}

// Calls read for each component of a sequence, or for the one component that element is.
template <typename Read>
absl::Status ForEachComponent(std::string_view slot, std::string_view list_key,
                              JsonComponent component, int depth, const Read& read) {
  if (!component.has_value()) return absl::OkStatus();
  JsonFields fields(kTokenizerJson, Str(slot), *component);
  const std::string type = fields.Text("type");
  if (!fields.status().ok()) return fields.status();
  if (type != "Sequence") return read(type, fields);
  if (depth == kMaxDepth) return Unsupported(slot, "nested deeper than 8");
  for (const element inner : fields.Elements(list_key)) {
    absl::Status status = ForEachComponent(slot, list_key, inner, depth + 1, read);
    if (!status.ok()) return status;
  }
  return fields.status();
}

// One step of a pre-tokenizer or the reason why we have none.
class PreTokenizerReader {
 public:
  absl::Status Add(const std::string& type, JsonFields& fields) {
    if (part_byte_level_) return Unsupported("pre_tokenizer", "with a step after ByteLevel");
    if (steps_.size() + 2 > PreTokenizer::kMaxSteps) {
      return Unsupported("pre_tokenizer", "of more than 16 steps");
    }
    if (type == "ByteLevel") {
      part_byte_level_ = true;
      steps_.push_back({.add_prefix_space = fields.Bool("add_prefix_space"),
                        .scanner = fields.BoolOr("use_regex", true) ? ScanGpt2 : nullptr});
    } else if (type == "Digits") {
      steps_.push_back(
          {.scanner = fields.Bool("individual_digits") ? ScanNumericCharacter : ScanNumericRun});
    } else if (type == "BertPreTokenizer") {
      steps_.push_back({.scanner = ScanSpace, .keep_matches = false});
      steps_.push_back({.scanner = ScanBertPunctuation});
    } else if (type == "Split") {
      return AddSplit(fields);
    } else {
      return Unsupported("pre_tokenizer", Quoted(type));
    }
    return fields.status();
  }

  PreTokenizerPart Take() { return {PreTokenizer(std::move(steps_)), part_byte_level_}; }

 private:
  absl::Status AddSplit(JsonFields& fields) {
    JsonFields pattern = fields.Child("pattern");
    if (pattern.Has("String")) {
      return Unsupported("pre_tokenizer",
                         absl::StrCat("Split at the string ", Quoted(pattern.Text("String"))));
    }
    const std::string regex = pattern.Text("Regex");
    const std::string behavior = fields.Text("behavior");
    const bool invert = fields.Bool("invert");
    for (const JsonFields* read : {&pattern, &fields}) {
      if (!read->status().ok()) return read->status();
    }
    const Scanner scanner = FindScanner(regex);
    if (scanner == nullptr) {
      return Unsupported("pre_tokenizer", absl::StrCat("Split by the regex ", Quoted(regex)));
    }
    // "Removed" takes out what matches; inverted, what does not.
    if (behavior != "Isolated" && !(behavior == "Removed" && invert)) {
      return Unsupported("pre_tokenizer", absl::StrCat("Split with behavior ", Quoted(behavior),
                                                       invert ? ", inverted" : ""));
    }
    steps_.push_back({.scanner = scanner, .keep_gaps = behavior == "Isolated"});
    return absl::OkStatus();
  }

  std::vector<SplitStep> steps_;
  bool part_byte_level_ = false;
};

// Appends the ids that a template's special token stands for.
absl::Status ReadTemplateToken(const std::string& id, JsonFields& tokens,
                               std::vector<int32_t>* ids) {
  JsonFields token = tokens.Child(id);
  for (const element item : token.Elements("ids")) {
    int64_t value = -1;
    if (item.get(value) != simdjson::SUCCESS || value < 0 || value > INT32_MAX) {
      token.FailAt("ids", "has something that is no token id");
    }
    ids->push_back(static_cast<int32_t>(value));
  }
  return token.status();
}

// Reads what a template puts before and after the sequence.
absl::StatusOr<PostStep> ReadTemplate(JsonFields& fields) {
  PostStep step;
  int sequences = 0;
  JsonFields tokens = fields.Child("special_tokens");
  for (const element item : fields.Elements("single")) {
    JsonFields piece(kTokenizerJson, fields.PathOf("single"), item);
    const bool is_sequence = piece.Has("Sequence");
    JsonFields part = piece.Child(is_sequence ? "Sequence" : "SpecialToken");
    const std::string id = part.Text("id");
    absl::Status status = part.status();
    if (is_sequence) {
      if (status.ok() && (++sequences > 1 || id != "A")) {
        return Unsupported("post_processor", "TemplateProcessing with more than the sequence A");
      }
    } else if (status.ok()) {
      status = ReadTemplateToken(id, tokens, sequences > 0 ? &step.after : &step.before);
    }
    if (!status.ok()) return status;
  }
  if (!fields.status().ok()) return fields.status();
  if (sequences == 0) return Unsupported("post_processor", "TemplateProcessing without sequence");
  return step;
}

// BertProcessing's and RobertaProcessing's ["[CLS]", 101].
int32_t ReadTokenPair(JsonFields& fields, std::string_view key) {
  const std::vector<element> pair = fields.Elements(key);
  int64_t id = -1;
  if (pair.size() != 2 || pair[1].get(id) != simdjson::SUCCESS || id < 0 || id > INT32_MAX) {
    fields.FailAt(key, "is no pair of a text and a token id");
  }
  return static_cast<int32_t>(id);
}

absl::StatusOr<PostStep> ReadPostStep(const std::string& type, JsonFields& fields) {
  if (type == "TemplateProcessing") return ReadTemplate(fields);
  PostStep step;
  if (type == "ByteLevel" || type == "RobertaProcessing") {
    step.trim_offsets = fields.Bool("trim_offsets");
    step.add_prefix_space = fields.Bool("add_prefix_space");
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    step.before.push_back(ReadTokenPair(fields, "cls"));
    step.after.push_back(ReadTokenPair(fields, "sep"));
  } else if (type != "ByteLevel") {
    return Unsupported("post_processor", Quoted(type));
  }
  if (!fields.status().ok()) return fields.status();
  return step;
}

}  // namespace

absl::StatusOr<Normalizer> ReadNormalizer(JsonComponent component) {
  Normalizer normalizer;
  const auto add = [&](const std::string& type, JsonFields& fields) -> absl::Status {
    if (!normalizer.changes_nothing()) return Unsupported("normalizer", "of more than one step");
    if (type == "NFC") {
      normalizer = Normalizer::Nfc();
    } else if (type == "BertNormalizer") {
      BertNormalizerOptions options;
      options.clean_text = fields.Bool("clean_text");
      options.handle_chinese_chars = fields.Bool("handle_chinese_chars");
      options.lowercase = fields.Bool("lowercase");
      options.strip_accents = fields.BoolOr("strip_accents", options.lowercase);
      normalizer = Normalizer::Bert(options);
    } else {
      return Unsupported("normalizer", Quoted(type));
    }
    return fields.status();
  };
  absl::Status status = ForEachComponent("normalizer", "normalizers", component, 0, add);
  if (!status.ok()) return status;
  return normalizer;
}

absl::StatusOr<PreTokenizerPart> ReadPreTokenizer(JsonComponent component) {
  PreTokenizerReader reader;
  absl::Status status = ForEachComponent(
      "pre_tokenizer", "pretokenizers", component, 0,
      [&](const std::string& type, JsonFields& fields) { return reader.Add(type, fields); });
  if (!status.ok()) return status;
  return reader.Take();
}

absl::StatusOr<PostProcessor> ReadPostProcessor(JsonComponent component) {
  std::vector<PostStep> steps;
  absl::Status status =
      ForEachComponent("post_processor", "processors", component, 0,
                       [&](const std::string& type, JsonFields& fields) -> absl::Status {
                         absl::StatusOr<PostStep> step = ReadPostStep(type, fields);
                         if (!step.ok()) return step.status();
                         steps.push_back(*std::move(step));
                         return absl::OkStatus();
                       });
  if (!status.ok()) return status;
  return PostProcessor(std::move(steps));
}

absl::StatusOr<Decoder> ReadDecoder(JsonComponent component) {
  Decoder decoder;
  decoder.kind = Decoder::Kind::kSpaces;
  const auto add = [&](const std::string& type, JsonFields& fields) -> absl::Status {
    if (decoder.kind != Decoder::Kind::kSpaces) {
      return Unsupported("decoder", "of more than one step");
    }
    if (type == "ByteLevel") {
      decoder.kind = Decoder::Kind::kByteLevel;
    } else if (type == "WordPiece") {
      decoder.kind = Decoder::Kind::kWordPiece;
      decoder.continuing_prefix = fields.Text("prefix");
      decoder.cleanup = fields.Bool("cleanup");
    } else {
      return Unsupported("decoder", Quoted(type));
    }
    return fields.status();
  };
  absl::Status status = ForEachComponent("decoder", "decoders", component, 0, add);
  if (!status.ok()) return status;
  return decoder;
}

}  // namespace nibble
