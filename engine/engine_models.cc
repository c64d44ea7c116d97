// Models by name: loading, unloading, estimates, lists, and their tokenizers on their own.
#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "engine/engine.h"
#include "engine/engine_core.h"
#include "engine/model/architecture.h"
#include "engine/model/sizing.h"
#include "engine/prepare.h"
#include "engine/served_model.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr size_t kMaxNameBytes = 64;

absl::Status CheckName(const std::string& name) {
  const bool charset = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
  if (charset && !name.empty() && name.size() <= kMaxNameBytes) return absl::OkStatus();
  return Invalid("MODEL_NAME_INVALID",
                 absl::StrCat("model name \"", absl::CHexEscape(name.substr(0, 2 * kMaxNameBytes)),
                              "\": wanted 1 to 64 of A-Z a-z 0-9 . _ -"),
                 "name");
}

ModelDescription DescriptionOf(const LoadRequest& request, const Backend& backend) {
  ModelDescription description;
  description.name = request.name;
  description.source = request.source;
  description.options = request.options;
  description.compute = Name(backend.compute());
  description.device = backend.device();
  return description;
}

int64_t CountParameters(const Checkpoint& checkpoint) {
  int64_t parameters = 0;
  for (const TensorRef& tensor : checkpoint.tensors()) parameters += tensor.NumValues();
  return parameters;
}

void Describe(const Model& model, int64_t parameters, ModelDescription* description) {
  description->config = model.config();
  description->options = model.options();
  description->can_generate = model.can_generate();
  description->can_embed = model.can_embed();
  description->has_tokenizer = model.tokenizer() != nullptr;
  description->has_chat_template = model.chat_template() != nullptr;
  description->max_context = model.max_context();
  description->kv_tokens = model.kv_cache().num_pages * kPageSlots;
  description->parameters = parameters;
  description->vocabulary = VocabularyOf(model);
  description->memory = model.plan();
}

}  // namespace

absl::StatusOr<LoadedModel> LoadFromDisk(const LoadRequest& request, const LoadTarget& target) {
  target.progress({"open", 0, 0});
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(request.source);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(request.name, **checkpoint, request.options, target.limits, target.backend,
                  target.ledger, target.progress, target.cancelled);
  if (!model.ok()) return model.status();
  return LoadedModel{*std::move(model), CountParameters(**checkpoint)};
}

absl::StatusOr<ModelDescription> Engine::LoadModel(
    const LoadRequest& request, const std::function<void(const LoadProgress&)>& progress) {
  Core& core = *core_;
  if (absl::Status status = CheckName(request.name); !status.ok()) return status;
  ModelDescription description = DescriptionOf(request, *core.parts.backend);
  if (absl::Status status = core.registry.BeginLoad(description); !status.ok()) return status;

  const auto late = [&] { return core.parts.clock() >= request.deadline; };
  absl::StatusOr<LoadedModel> loaded =
      core.parts.load(request, {.limits = core.options.limits,
                                .backend = core.parts.backend.get(),
                                .ledger = &core.ledger,
                                .progress = progress ? progress : [](const LoadProgress&) {},
                                .cancelled = [&] { return core.registry.closed() || late(); }});
  if (!loaded.ok()) {
    core.registry.AbandonLoad(request.name);
    if (!absl::IsCancelled(loaded.status())) return loaded.status();
    return late() ? Error(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                          "the deadline passed while the model was loading")
                  : Error(absl::StatusCode::kUnavailable, "DRAINING",
                          "the server shut down while the model was loading");
  }
  Describe(*loaded->model, loaded->parameters, &description);
  core.registry.FinishLoad(
      description, std::make_unique<ServedModel>(std::move(loaded->model), core.admission()));
  return GetModel(request.name);
}

absl::Status Engine::UnloadModel(const std::string& name, absl::Time deadline) {
  Core& core = *core_;
  if (absl::Status status = core.registry.BeginUnload(name); !status.ok()) return status;
  const absl::Time now = core.parts.clock();
  if (!core.registry.WaitUnused(name, std::max(deadline - now, absl::ZeroDuration()))) {
    core.loop.inbox().Send(
        Cancellation{.model = core.registry.Peek(name),
                     .status = Error(absl::StatusCode::kUnavailable, "MODEL_UNLOADING",
                                     absl::StrCat("model \"", name,
                                                  "\" was unloaded before the answer was complete"),
                                     "model")},
        now);
    core.registry.WaitUnused(name, absl::InfiniteDuration());
  }
  core.registry.FinishUnload(name).reset();
  malloc_trim(0);
  return absl::OkStatus();
}

absl::StatusOr<ModelDescription> Engine::EstimateModel(const LoadRequest& request) {
  const Backend& backend = *core_->parts.backend;
  ModelDescription description = DescriptionOf(request, backend);
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(request.source);
  if (!checkpoint.ok()) return checkpoint.status();
  const int64_t free_bytes = core_->ledger.budget_bytes() - core_->ledger.used_bytes();
  const absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Plan(**checkpoint, request.options, core_->options.limits, backend, free_bytes);
  if (!model.ok()) return model.status();
  Describe(**model, CountParameters(**checkpoint), &description);
  return description;
}

std::vector<ModelDescription> Engine::ListModels() const { return core_->registry.List(); }

absl::StatusOr<ModelDescription> Engine::GetModel(const std::string& name) const {
  return core_->registry.Get(name);
}

// --- tokenizers ---

namespace {

absl::StatusOr<const Tokenizer*> TokenizerOf(const Model& model) {
  if (model.tokenizer() != nullptr) return model.tokenizer();
  return Error(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
               absl::StrCat("model \"", model.name(), "\" has no tokenizer"), "model");
}

absl::Status CheckCount(size_t count, const char* field, const RequestCaps& caps) {
  if (static_cast<int64_t>(count) <= caps.max_inputs) return absl::OkStatus();
  return Invalid(
      "OVER_CAP",
      absl::StrCat("the request has ", count, " ", field, ", the cap is ", caps.max_inputs), field);
}

absl::Status At(const absl::Status& status, const char* list, size_t index) {
  const std::string field = absl::StrCat(list, "[", index, "]");
  return Error(status.code(), ReasonOf(status), absl::StrCat(field, ": ", status.message()), field);
}

}  // namespace

absl::StatusOr<std::vector<Encoding>> Engine::Tokenize(const std::string& model,
                                                       const std::vector<std::string>& texts,
                                                       bool add_special_tokens,
                                                       bool offsets) const {
  if (absl::Status status = CheckCount(texts.size(), "texts", core_->options.caps); !status.ok()) {
    return status;
  }
  const absl::StatusOr<ModelLease> lease = core_->registry.Lease(model);
  if (!lease.ok()) return lease.status();
  const absl::StatusOr<const Tokenizer*> tokenizer = TokenizerOf((*lease)->model());
  if (!tokenizer.ok()) return tokenizer.status();
  std::vector<Encoding> encodings;
  for (size_t i = 0; i < texts.size(); ++i) {
    absl::StatusOr<Encoding> encoding = (*tokenizer)->Encode(texts[i], add_special_tokens, offsets);
    if (!encoding.ok()) return At(encoding.status(), "texts", i);
    encodings.push_back(*std::move(encoding));
  }
  return encodings;
}

absl::StatusOr<std::vector<std::string>> Engine::Detokenize(
    const std::string& model, const std::vector<std::vector<int32_t>>& tokens,
    bool skip_special_tokens) const {
  if (absl::Status status = CheckCount(tokens.size(), "tokens", core_->options.caps);
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<ModelLease> lease = core_->registry.Lease(model);
  if (!lease.ok()) return lease.status();
  const absl::StatusOr<const Tokenizer*> tokenizer = TokenizerOf((*lease)->model());
  if (!tokenizer.ok()) return tokenizer.status();
  std::vector<std::string> texts;
  for (size_t i = 0; i < tokens.size(); ++i) {
    absl::StatusOr<std::string> text = (*tokenizer)->Decode(tokens[i], skip_special_tokens);
    if (!text.ok()) return At(text.status(), "tokens", i);
    texts.push_back(*std::move(text));
  }
  return texts;
}

}  // namespace nibble
