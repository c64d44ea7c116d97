// Planning and loading, the same way for every architecture: prepare (ask for tensors and buffers,
// lay them out, count), reserve, allocate, fill, check.
#include "engine/model/model.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/loader/read_ahead.h"
#include "engine/model/architecture.h"
#include "engine/model/inventory.h"
#include "engine/model/sizing.h"
#include "engine/model/weight_loader.h"
#include "engine/model/workspace.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr int64_t kScratchAlignment = 64;

int64_t ScratchBegin(const Workspace& workspace) {
  return (workspace.device_bytes() + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

// An encoder computes an input whole, so one step must hold the longest.
StepLimits SizedLimits(const StepLimits& limits, const ArchitectureRow& row,
                       const ModelOptions& options) {
  StepLimits sized = limits;
  if (!row.has_kv_cache) sized.max_rows = std::max(sized.max_rows, options.max_context);
  return sized;
}

BackendLimits DeviceLimits(const ModelConfig& config, const StepLimits& limits,
                           const ArchitectureRow& row, const ModelOptions& options) {
  BackendLimits device;
  device.max_rows = limits.max_rows;
  device.max_context = options.max_context;
  device.max_heads = config.num_heads;
  device.max_head_dim = config.head_dim;
  device.max_k = std::max({config.hidden, config.ffn, config.num_heads * config.head_dim});
  device.max_vocab = row.has_kv_cache ? config.vocab : 0;
  device.max_samples = row.has_kv_cache ? limits.max_logit_rows : 0;
  device.int8 = options.weights == WeightFormat::kInt8 || options.head == WeightFormat::kInt8;
  return device;
}

// Blocks of this size and more are mapped, so they go back to the system when they are freed. Left
// to itself malloc would raise the bound and keep a load's temporaries in its threads' arenas,
// which malloc_trim does not reach: memory that no ledger knows.
void ReturnLargeBlocksWhenFreed() { mallopt(M_MMAP_THRESHOLD, 128 << 10); }

int64_t TextBytes(const Tokenizer* tokenizer, const ChatTemplate* chat_template) {
  return (tokenizer == nullptr ? 0 : tokenizer->MemoryBytes()) +
         (chat_template == nullptr ? 0 : chat_template->MemoryBytes());
}

}  // namespace

Model::~Model() {
  // The device's memory goes back by itself; what malloc holds must be asked for, or the process
  // would keep what the ledger says is free.
  tokenizer_.reset();
  chat_template_.reset();
  malloc_trim(0);
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(
    std::string name, const Checkpoint& checkpoint, const ModelOptions& options,
    const StepLimits& limits, Backend* backend, Ledger* ledger,
    const std::function<void(const LoadProgress&)>& progress,
    const std::function<bool()>& cancelled) {
  ReturnLargeBlocksWhenFreed();
  absl::StatusOr<std::unique_ptr<Model>> reserved =
      PrepareAndReserve(name, checkpoint, options, limits, *backend, ledger);
  if (!reserved.ok()) return reserved.status();
  std::unique_ptr<Model> model = *std::move(reserved);

  ReadAhead ahead(model->inventory_->MatrixBytes());  // while memory is allocated, and on
  if (absl::Status status = model->Allocate(backend); !status.ok()) return status;
  absl::Status loaded = LoadWeights(model->inventory_.get(), backend, &ahead, progress, cancelled);
  if (!loaded.ok()) return loaded;
  if (absl::Status status = checkpoint.CheckUnchanged(); !status.ok()) return status;
  const int64_t total = model->inventory_->CheckpointBytes();
  model->inventory_->ForgetCheckpoint();
  malloc_trim(0);  // what the load took for itself
  if (absl::Status status = model->CheckUse(); !status.ok()) return status;
  progress({"ready", total, total});
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> Model::PrepareAndReserve(
    const std::string& name, const Checkpoint& checkpoint, const ModelOptions& options,
    const StepLimits& limits, const Backend& backend, Ledger* ledger) {
  while (true) {
    const int64_t used = ledger->used_bytes();
    absl::StatusOr<std::unique_ptr<Model>> model =
        Plan(checkpoint, options, limits, backend, ledger->budget_bytes() - used);
    if (!model.ok()) return model.status();
    (*model)->name_ = name;
    absl::StatusOr<Reservation> reservation = ledger->Reserve(name, (*model)->plan_);
    if (reservation.ok()) {
      (*model)->reservation_ = *std::move(reservation);
      return model;
    }
    // Another load took memory meanwhile: with a smaller KV cache this one may still fit.
    if (ledger->used_bytes() <= used) return reservation.status();
  }
}

absl::StatusOr<std::unique_ptr<Model>> Model::Plan(const Checkpoint& checkpoint,
                                                   const ModelOptions& options,
                                                   const StepLimits& limits, const Backend& backend,
                                                   int64_t free_bytes) {
  const ModelConfig& config = checkpoint.config();
  const ArchitectureRow& row = FindArchitecture(config.architecture);
  if (absl::Status status = CheckDimensions(config); !status.ok()) return status;
  if (absl::Status status = row.check(config); !status.ok()) return status;
  absl::StatusOr<ModelOptions> resolved =
      ResolveOptions(options, config, FirstQuantized(checkpoint));
  if (!resolved.ok()) return resolved.status();
  const StepLimits sized = SizedLimits(limits, row, *resolved);

  auto inventory = std::make_unique<Inventory>(checkpoint, *resolved);
  auto workspace = std::make_unique<Workspace>();
  std::unique_ptr<Model> model = row.make(config, sized, inventory.get(), workspace.get());
  if (!inventory->status().ok()) return inventory->status();
  model->config_ = config;
  model->options_ = *std::move(resolved);
  model->limits_ = sized;
  model->inventory_ = std::move(inventory);
  model->workspace_ = std::move(workspace);
  if (absl::Status status = model->ReadText(checkpoint); !status.ok()) return status;
  if (absl::Status status = model->DrawPlan(backend, free_bytes); !status.ok()) return status;
  return model;
}

absl::Status Model::ReadText(const Checkpoint& checkpoint) {
  bos_token_ = checkpoint.bos_token;
  eos_token_ = checkpoint.eos_token;
  if (checkpoint.hf_tokenizer().has_value() || checkpoint.gguf_tokenizer().has_value()) {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        checkpoint.hf_tokenizer().has_value() ? Tokenizer::Make(*checkpoint.hf_tokenizer())
                                              : Tokenizer::Make(*checkpoint.gguf_tokenizer());
    if (!tokenizer.ok()) return tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }
  if (checkpoint.chat_template().empty() || tokenizer_ == nullptr) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat =
      ChatTemplate::Parse(checkpoint.chat_template());
  if (!chat.ok()) return chat.status();
  chat_template_ = *std::move(chat);
  return absl::OkStatus();
}

// The one place that says what a model takes.
absl::Status Model::DrawPlan(const Backend& backend, int64_t free_bytes) {
  const ArchitectureRow& row = FindArchitecture(config_.architecture);
  inventory_->Place(backend, &plan_);
  device_limits_ = DeviceLimits(config_, limits_, row, options_);
  if (const absl::Status status = backend.CheckLimits(device_limits_); !status.ok()) {
    return Error(status.code(), "UNSUPPORTED_MODEL", std::string(status.message()));
  }
  scratch_bytes_ = backend.ScratchBytes(device_limits_);
  const auto add = [&](MemoryKind kind, const char* name, int64_t bytes) {
    if (bytes > 0) plan_.items.push_back({kind, name, bytes});
  };
  add(MemoryKind::kWorkspace, "activations", ScratchBegin(*workspace_));
  add(MemoryKind::kWorkspace, "scratch", scratch_bytes_);
  add(MemoryKind::kOther, "row ids", workspace_->host_bytes());
  add(MemoryKind::kTokenizer, "tokenizer", TextBytes(tokenizer_.get(), nullptr));
  add(MemoryKind::kTokenizer, "chat template", TextBytes(nullptr, chat_template_.get()));
  if (!row.has_kv_cache) return absl::OkStatus();
  absl::StatusOr<KvCache> kv = SizeKvCache(config_, plan_, free_bytes, &options_);
  if (!kv.ok()) return kv.status();
  kv_ = *kv;
  add(MemoryKind::kKvCache, "kv pages", kv_.Bytes());
  return absl::OkStatus();
}

absl::Status Model::Allocate(Backend* backend) {
  backend_ = backend;
  const std::pair<MemoryKind, int64_t> arenas[] = {
      {MemoryKind::kWeights, inventory_->weights_bytes()},
      {MemoryKind::kEmbeddings, inventory_->embeddings_bytes()},
      {MemoryKind::kKvCache, kv_.Bytes()},
      {MemoryKind::kWorkspace, ScratchBegin(*workspace_) + scratch_bytes_},
  };
  for (const auto& [kind, bytes] : arenas) {
    if (bytes == 0) continue;
    absl::StatusOr<Buffer> buffer = backend->Allocate(bytes);
    if (!buffer.ok()) {
      return Error(buffer.status().code(), "DEVICE_OUT_OF_MEMORY",
                   absl::StrCat(name_, ": ", Name(kind), ": ", buffer.status().message()));
    }
    Memory(kind) = *std::move(buffer);
  }
  inventory_->Bind(Memory(MemoryKind::kWeights).data(), Memory(MemoryKind::kEmbeddings).data());
  workspace_->Bind(Memory(MemoryKind::kWorkspace).data());
  kv_.data = Memory(MemoryKind::kKvCache).data();
  return absl::OkStatus();
}

absl::Status Model::CheckUse() {
  for (int i = 0; i < kNumMemoryKinds; ++i) {
    const auto kind = static_cast<MemoryKind>(i);
    int64_t used = Memory(kind).bytes();
    if (kind == MemoryKind::kOther) used += workspace_->host_bytes();
    if (kind == MemoryKind::kTokenizer) used += TextBytes(tokenizer_.get(), chat_template_.get());
    if (used == plan_.Total(kind)) continue;
    return Error(absl::StatusCode::kInternal, "PLAN_MISMATCH",
                 absl::StrCat(name_, ": ", Name(kind), " was planned to take ", plan_.Total(kind),
                              " bytes and took ", used));
  }
  return absl::OkStatus();
}

void Model::MatMul(const Activations& x, std::span<const MatMulPart> parts) {
  for (const MatMulPart& part : parts) {
    ++gemm_calls_[static_cast<size_t>(part.weight->spec.format)];
  }
  backend_->MatMul(x, parts);
}

void Model::BeginStep(size_t rows, size_t sequences) {
  Check(static_cast<int64_t>(rows) <= limits_.max_rows, "a step has at most max_rows rows");
  Check(static_cast<int64_t>(sequences) <= limits_.max_sequences,
        "a step has at most max_sequences sequences");
  backend_->UseScratch(Memory(MemoryKind::kWorkspace).data() + ScratchBegin(*workspace_),
                       scratch_bytes_, device_limits_);
}

}  // namespace nibble
