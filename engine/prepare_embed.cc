// Embed: every input encoded, truncated if that was asked for, or the whole call refused with the
// first bad one's index.
#include <algorithm>
#include <utility>

#include "engine/prepare.h"
#include "engine/served_model.h"
#include "engine/status.h"

namespace nibble {
namespace {

std::string FieldOfInput(size_t index) { return absl::StrCat("inputs[", index, "]"); }

// The longest input of this model.
int64_t MaxInputTokens(const Model& model) {
  const ModelConfig& config = model.config();
  int64_t tokens = std::min(model.limits().max_rows, model.max_context());
  if (config.max_positions > 0) tokens = std::min(tokens, config.max_positions);
  const int64_t own = config.embedding.max_seq_length;
  return own > 0 ? std::min(own, tokens) : tokens;
}

// The text that goes before every text input.
absl::StatusOr<std::string> FindPrompt(const Model& model, const std::string& asked) {
  const EmbeddingConfig& config = model.config().embedding;
  const std::string& name = asked.empty() ? config.default_prompt_name : asked;
  if (name.empty()) return std::string();
  const auto it = config.prompts.find(name);
  if (it != config.prompts.end()) return it->second;
  if (asked.empty()) return std::string();
  std::string known;
  for (const auto& [key, text] : config.prompts) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", "\"", key, "\"");
  }
  return Invalid("UNKNOWN_PROMPT_NAME",
                 absl::StrCat("prompt_name \"", asked, "\": the model has ",
                              known.empty() ? "no prompts" : known),
                 "prompt_name");
}

absl::StatusOr<EncodeSettings> ResolveSettings(const Model& model, const EmbedRequest& request) {
  const EmbeddingConfig& config = model.config().embedding;
  if (!model.can_embed() || (!config.present && !request.pooling.has_value())) {
    return Error(absl::StatusCode::kFailedPrecondition, "MODEL_CANNOT_EMBED",
                 absl::StrCat("model \"", model.name(), "\" ",
                              model.can_embed() ? "does not say how it pools; set pooling"
                                                : "generates; it has no pooling to embed with"),
                 model.can_embed() ? "pooling" : "model");
  }
  const int64_t width = model.config().hidden;
  if (request.dimensions < 0 || request.dimensions > width) {
    return Invalid("VALUE_OUT_OF_RANGE",
                   absl::StrCat("dimensions is ", request.dimensions, ", the model has ", width),
                   "dimensions");
  }
  return EncodeSettings{.pooling = request.pooling.value_or(config.pooling),
                        .normalize = request.normalize.value_or(config.normalize),
                        .dimensions = request.dimensions};
}

struct EncodedInput {
  std::vector<int32_t> ids;
  bool truncated = false;
};

// Encodes the inputs of one call.
class InputEncoder {
 public:
  InputEncoder(const Model& model, std::string prompt, Truncation truncation)
      : model_(model),
        prompt_(std::move(prompt)),
        truncation_(truncation),
        max_tokens_(MaxInputTokens(model)) {}

  absl::StatusOr<EncodedInput> Encode(const TextPrompt& input, const std::string& field) const {
    const Tokenizer* const tokenizer = model_.tokenizer();
    if (tokenizer == nullptr) {
      return Error(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
                   absl::StrCat("model \"", model_.name(), "\" has no tokenizer; send token_ids"),
                   field);
    }
    const std::string text = prompt_ + input.text;
    absl::StatusOr<Encoding> whole = tokenizer->Encode(text, /*add_special_tokens=*/true);
    if (!whole.ok()) {
      return Error(whole.status().code(), ReasonOf(whole.status()),
                   absl::StrCat(field, ": ", whole.status().message()), field);
    }
    if (Fits(whole->ids)) return EncodedInput{std::move(whole->ids), false};
    if (truncation_ == Truncation::kNone) return TooLong(whole->ids.size(), field);
    const absl::StatusOr<Encoding> bare = tokenizer->Encode(text, /*add_special_tokens=*/false);
    if (!bare.ok()) return bare.status();
    return EncodedInput{Truncate(whole->ids, bare->ids), true};
  }

  absl::StatusOr<EncodedInput> Encode(const TokenPrompt& input, const std::string& field) const {
    if (absl::Status status = CheckTokenIds(model_, input.ids, field); !status.ok()) {
      return status;
    }
    if (Fits(input.ids)) return EncodedInput{input.ids, false};
    if (truncation_ == Truncation::kNone) return TooLong(input.ids.size(), field);
    return EncodedInput{Truncate(input.ids, input.ids), true};
  }

 private:
  bool Fits(const std::vector<int32_t>& ids) const {
    return static_cast<int64_t>(ids.size()) <= max_tokens_;
  }

  absl::Status TooLong(size_t tokens, const std::string& field) const {
    return Invalid("INPUT_TOO_LONG",
                   absl::StrCat(field, " has ", tokens, " tokens, the model takes ", max_tokens_,
                                "; set truncation to RIGHT or LEFT to cut it"),
                   field);
  }

  // Cuts the bare tokens so that with the special ones around them they fit, as Hugging Face does.
  std::vector<int32_t> Truncate(const std::vector<int32_t>& whole,
                                const std::vector<int32_t>& bare) const {
    const auto begin = std::search(whole.begin(), whole.end(), bare.begin(), bare.end());
    const auto special = static_cast<int64_t>(whole.size() - bare.size());
    const auto kept = static_cast<ptrdiff_t>(
        std::clamp<int64_t>(max_tokens_ - special, 0, static_cast<int64_t>(bare.size())));
    const auto end = begin + static_cast<ptrdiff_t>(bare.size());
    const auto from = truncation_ == Truncation::kRight ? begin : end - kept;
    std::vector<int32_t> ids(whole.begin(), begin);
    ids.insert(ids.end(), from, from + kept);
    ids.insert(ids.end(), end, whole.end());
    return ids;
  }

  const Model& model_;
  const std::string prompt_;
  const Truncation truncation_;
  const int64_t max_tokens_;
};

absl::Status CheckInputs(const EmbedRequest& request, const RequestCaps& caps) {
  if (request.inputs.empty()) return Invalid("NO_INPUTS", "the request has no inputs", "inputs");
  if (static_cast<int64_t>(request.inputs.size()) > caps.max_inputs) {
    return Invalid("OVER_CAP",
                   absl::StrCat("the request has ", request.inputs.size(), " inputs, the cap is ",
                                caps.max_inputs),
                   "inputs");
  }
  int64_t bytes = 0;
  for (const auto& input : request.inputs) {
    const auto* const text = std::get_if<TextPrompt>(&input);
    if (text != nullptr) bytes += static_cast<int64_t>(text->text.size());
  }
  if (bytes <= caps.max_prompt_bytes) return absl::OkStatus();
  return Invalid("OVER_CAP",
                 absl::StrCat("inputs: ", bytes, " bytes, the cap is ", caps.max_prompt_bytes),
                 "inputs");
}

absl::Status EncodeInputs(const EmbedRequest& request, const InputEncoder& encoder, EmbedJob* job) {
  for (size_t i = 0; i < request.inputs.size(); ++i) {
    const std::string field = FieldOfInput(i);
    absl::StatusOr<EncodedInput> input = std::visit(
        [&](const auto& prompt) { return encoder.Encode(prompt, field); }, request.inputs[i]);
    if (!input.ok()) return input.status();
    if (input->ids.empty()) {
      return Invalid("EMPTY_PROMPT", absl::StrCat(field, " has no tokens"), field);
    }
    const auto rows = static_cast<int64_t>(input->ids.size());
    job->embeddings.push_back({{}, static_cast<int32_t>(rows), input->truncated});
    job->inputs.push_back(std::move(input->ids));
    job->input_rows.push_back(rows);
    job->prompt_tokens += rows;
  }
  job->queued_tokens = job->prompt_tokens;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<EmbedJob>> PrepareEmbed(ModelLease lease, const RequestCaps& caps,
                                                       const EmbedRequest& request) {
  const Model& model = lease->model();
  const absl::StatusOr<EncodeSettings> settings = ResolveSettings(model, request);
  if (!settings.ok()) return settings.status();
  if (absl::Status status = CheckInputs(request, caps); !status.ok()) return status;
  absl::StatusOr<std::string> prompt = FindPrompt(model, request.prompt_name);
  if (!prompt.ok()) return prompt.status();

  auto job = std::make_unique<EmbedJob>(std::move(lease));
  job->context = request.context;
  job->settings = *settings;
  const InputEncoder encoder(model, *std::move(prompt), request.truncation);
  if (absl::Status status = EncodeInputs(request, encoder, job.get()); !status.ok()) return status;
  return job;
}

}  // namespace nibble
