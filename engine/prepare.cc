// Generate: the prompt's three forms, the limits of the context, the answers' common spec.
#include "engine/prepare.h"

#include <algorithm>
#include <random>
#include <utility>

#include "engine/sampling/params.h"
#include "engine/served_model.h"
#include "engine/status.h"

namespace nibble {
namespace {

absl::Status Cannot(std::string_view reason, const std::string& message,
                    std::string_view field = {}) {
  return Error(absl::StatusCode::kFailedPrecondition, reason, message, field);
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// The other rooms know what is wrong with a value, not what the request calls it.
absl::Status WithField(const absl::Status& status, std::string_view field) {
  if (!FieldOf(status).empty()) return status;
  return Error(status.code(), ReasonOf(status), MessageOf(status), field);
}

absl::Status CheckBytes(int64_t bytes, const RequestCaps& caps, std::string_view field) {
  if (bytes <= caps.max_prompt_bytes) return absl::OkStatus();
  return Invalid(
      "OVER_CAP",
      absl::StrCat(Str(field), ": ", bytes, " bytes, the cap is ", caps.max_prompt_bytes), field);
}

absl::StatusOr<std::vector<int32_t>> EncodeText(const Model& model, const RequestCaps& caps,
                                                const TextPrompt& prompt, bool add_special) {
  if (absl::Status status = CheckBytes(static_cast<int64_t>(prompt.text.size()), caps, "text");
      !status.ok()) {
    return status;
  }
  if (model.tokenizer() == nullptr) {
    return Cannot("NO_TOKENIZER",
                  absl::StrCat("model \"", model.name(), "\" has no tokenizer; send token_ids"),
                  "text");
  }
  absl::StatusOr<Encoding> encoding = model.tokenizer()->Encode(prompt.text, add_special);
  if (!encoding.ok()) return WithField(encoding.status(), "text");
  if (encoding->ids.empty()) return Invalid("EMPTY_PROMPT", "text encodes to no tokens", "text");
  return std::move(encoding->ids);
}

absl::Status CheckMessages(const ChatPrompt& prompt, const RequestCaps& caps) {
  if (prompt.messages.empty()) {
    return Invalid("NO_PROMPT", "chat has no messages", "chat.messages");
  }
  if (static_cast<int64_t>(prompt.messages.size()) > caps.max_messages) {
    return Invalid("OVER_CAP",
                   absl::StrCat("chat has ", prompt.messages.size(), " messages, the cap is ",
                                caps.max_messages),
                   "chat.messages");
  }
  size_t bytes = 0;
  for (const ChatMessage& message : prompt.messages) {
    bytes += message.role.size() + message.content.size();
  }
  return CheckBytes(static_cast<int64_t>(bytes), caps, "chat.messages");
}

absl::StatusOr<std::vector<int32_t>> EncodeChat(const Model& model, const RequestCaps& caps,
                                                const ChatPrompt& prompt) {
  if (absl::Status status = CheckMessages(prompt, caps); !status.ok()) return status;
  if (model.tokenizer() == nullptr || model.chat_template() == nullptr) {
    const bool tokenizer = model.tokenizer() != nullptr;
    return Cannot(
        tokenizer ? "NO_CHAT_TEMPLATE" : "NO_TOKENIZER",
        absl::StrCat("model \"", model.name(), "\" has no ",
                     tokenizer ? "chat template; send text" : "tokenizer; send token_ids"),
        "chat");
  }
  absl::StatusOr<std::vector<TextSegment>> segments = model.chat_template()->Render(
      prompt.messages, {.bos_token = model.bos_token(), .eos_token = model.eos_token()});
  if (absl::IsResourceExhausted(segments.status())) {
    // The template's own limits: this chat is too much for it, and a retry will not help.
    return Invalid(ReasonOf(segments.status()), MessageOf(segments.status()), "chat");
  }
  if (!segments.ok()) return WithField(segments.status(), "chat");
  absl::StatusOr<std::vector<int32_t>> ids = model.tokenizer()->EncodeSegments(*segments);
  if (!ids.ok()) return WithField(ids.status(), "chat");
  if (ids->empty()) return Invalid("EMPTY_PROMPT", "chat encodes to no tokens", "chat");
  return ids;
}

absl::StatusOr<std::vector<int32_t>> TakeIds(const Model& model, const TokenPrompt& prompt) {
  if (prompt.ids.empty()) return Invalid("NO_PROMPT", "token_ids is empty", "token_ids.ids");
  if (absl::Status status = CheckTokenIds(model, prompt.ids, "token_ids.ids"); !status.ok()) {
    return status;
  }
  return prompt.ids;
}

uint64_t DrawSeed() {
  std::random_device entropy;
  return (uint64_t{entropy()} << 32) | entropy();
}

// How long an answer may get: what was asked for, the server's cap, the rest of the context.
int64_t MaxTokens(const Model& model, const RequestCaps& caps, const StoppingParams& stopping,
                  int64_t num_prompt) {
  int64_t tokens = model.max_context() - num_prompt;
  if (caps.max_output_tokens > 0) tokens = std::min<int64_t>(tokens, caps.max_output_tokens);
  return std::min<int64_t>(tokens, stopping.max_tokens.value_or(INT32_MAX));
}

// Ids that the model cannot sample, which its files may name, are left out.
std::vector<int32_t> StopIds(const Model& model, const StoppingParams& stopping) {
  std::vector<int32_t> ids = stopping.stop_token_ids;
  if (!stopping.ignore_eos) {
    const std::vector<int32_t>& eos = model.config().generation.eos_token_ids;
    ids.insert(ids.end(), eos.begin(), eos.end());
    const Tokenizer* const tokenizer = model.tokenizer();
    if (tokenizer != nullptr && tokenizer->eos_id().has_value())
      ids.push_back(*tokenizer->eos_id());
  }
  const int32_t vocabulary = VocabularyOf(model);
  std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= vocabulary; });
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

absl::StatusOr<AnswerSpec> MakeSpec(const Model& model, const RequestCaps& caps,
                                    const GenerateRequest& request) {
  const int32_t vocabulary = VocabularyOf(model);
  absl::StatusOr<ResolvedSampling> sampling =
      ResolveSampling(request.sampling, model.config().generation, caps, vocabulary);
  if (!sampling.ok()) return sampling.status();
  if (absl::Status status = CheckStopping(request.stopping, caps, vocabulary); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckOutput(request.output, caps); !status.ok()) return status;
  AnswerSpec spec;
  spec.tokenizer = model.tokenizer();
  spec.min_tokens = request.stopping.min_tokens;
  spec.stop_ids = StopIds(model, request.stopping);
  spec.stop = request.stopping.stop;
  spec.include_stop = request.stopping.include_stop;
  spec.sampling = sampling->plan;
  spec.sampling.seed = request.sampling.seed.has_value() ? *request.sampling.seed : DrawSeed();
  spec.sampling.vocab_limit = vocabulary;
  spec.sampling.num_logprobs = request.output.logprobs;
  spec.bias = std::move(sampling->bias);
  spec.penalized = sampling->penalized;
  spec.prompt_logprobs = request.output.prompt_logprobs;
  return spec;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GenerateJob>> PrepareGenerate(ModelLease lease,
                                                             const RequestCaps& caps,
                                                             const GenerateRequest& request) {
  const Model& model = lease->model();
  if (!model.can_generate()) {
    return Cannot("MODEL_CANNOT_GENERATE",
                  absl::StrCat("model \"", model.name(), "\" embeds; it cannot generate"), "model");
  }
  absl::StatusOr<AnswerSpec> spec = MakeSpec(model, caps, request);
  if (!spec.ok()) return spec.status();
  const absl::StatusOr<std::vector<int32_t>> prompt = EncodePrompt(model, caps, request);
  if (!prompt.ok()) return prompt.status();

  PagePool* const pool = lease->pages();
  auto job = std::make_unique<GenerateJob>(std::move(lease));
  job->context = request.context;
  job->priority = request.priority;
  job->spec = *std::move(spec);
  job->prompt_tokens = job->spec.num_prompt = static_cast<int64_t>(prompt->size());
  job->spec.max_tokens = MaxTokens(model, caps, request.stopping, job->spec.num_prompt);
  const int32_t n = request.sampling.n;
  job->queued_tokens = n * job->prompt_tokens;
  job->sequences.reserve(static_cast<size_t>(n));
  for (int32_t index = 0; index < n; ++index) {
    job->sequences.emplace_back(job.get(), &job->spec, *prompt, index, pool);
  }
  return job;
}

int32_t VocabularyOf(const Model& model) {
  const auto rows = static_cast<int32_t>(std::min<int64_t>(model.config().vocab, INT32_MAX));
  return model.tokenizer() == nullptr ? rows : std::min(rows, model.tokenizer()->vocab_size());
}

absl::Status CheckTokenIds(const Model& model, std::span<const int32_t> ids,
                           std::string_view field) {
  const int32_t vocabulary = VocabularyOf(model);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocabulary) continue;
    return Invalid("TOKEN_OUT_OF_RANGE",
                   absl::StrCat(Str(field), ": token id ", ids[i], " at index ", i,
                                ", the model has 0 to ", vocabulary - 1),
                   field);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const Model& model, const RequestCaps& caps,
                                                  const GenerateRequest& request) {
  absl::StatusOr<std::vector<int32_t>> ids =
      Invalid("NO_PROMPT", "the request has no prompt: set text, token_ids or chat", "prompt");
  if (const auto* text = std::get_if<TextPrompt>(&request.prompt)) {
    ids = EncodeText(model, caps, *text, request.add_special_tokens);
  } else if (const auto* chat = std::get_if<ChatPrompt>(&request.prompt)) {
    ids = EncodeChat(model, caps, *chat);
  } else if (const auto* tokens = std::get_if<TokenPrompt>(&request.prompt)) {
    ids = TakeIds(model, *tokens);
  }
  if (!ids.ok()) return ids;
  if (static_cast<int64_t>(ids->size()) >= model.max_context()) {
    return Invalid("PROMPT_TOO_LONG",
                   absl::StrCat("the prompt has ", ids->size(), " tokens; the context holds ",
                                model.max_context(), " and the answer needs at least 1"),
                   "prompt");
  }
  return ids;
}

}  // namespace nibble
