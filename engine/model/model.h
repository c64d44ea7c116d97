// A loaded model: weights in device memory, a KV cache, a workspace, a tokenizer, and its forward
// pass. Everything but the KV pages and the workspace is immutable after Load. Forward passes run
// on the engine thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/memory/ledger.h"
#include "engine/model/config.h"
#include "engine/step.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/backend.h"

namespace nibble {

class Inventory;
class Workspace;

struct ModelOptions {
  // kNf4, kFp4, kInt8 or kBf16; absent: as the file is quantized, else NF4. A quantized file keeps
  // its own form: another one is refused, as skip_modules are, and group_size and double_quant
  // follow it where it has 4 bits.
  std::optional<WeightFormat> weights;
  // kBf16 (16 bits), kInt8 or kNf4: lm_head and the token embeddings, which are one matrix in a
  // tied model, where the file does not hold them quantized. An encoder's small tables of positions
  // and types stay in 16 bits.
  WeightFormat head = WeightFormat::kBf16;
  // Of 4-bit weights and a 4-bit head.
  int32_t group_size = 64;
  bool double_quant = true;
  // Matrices that stay in 16 bits: those with one of these names in theirs, whole words between
  // dots ("lm_head", "mlp.gate"; bitsandbytes' llm_int8_skip_modules).
  std::vector<std::string> skip_modules;
  std::optional<DType> kv_dtype;  // absent: bf16 for bf16 models, else fp16
  int64_t max_context = 0;        // 0, or more than the model's own: the model's own
  int64_t kv_bytes = 0;  // 0: room for max(max_context, 16384) positions, less if memory is short
};

// Where a load stands; bytes are of the checkpoint's tensors.
struct LoadProgress {
  std::string stage;  // "open", "weights", "ready"
  int64_t done_bytes = 0;
  int64_t total_bytes = 0;
};

// Matrix products done so far, by the form of their weights.
using GemmCalls = std::array<int64_t, kNumWeightFormats>;  // by WeightFormat

class Model {
 public:
  // The model as it would be, without device memory: everything but the passes and the cache may
  // be asked, and plan() is exactly what loading will take. `free_bytes` bounds the default KV
  // size; an explicit kv_bytes is taken as it is. Errors: INVALID_ARGUMENT (an option out of range
  // or against a quantized file), FAILED_PRECONDITION (config and tensors disagree; not even one
  // context of KV fits), UNIMPLEMENTED.
  static absl::StatusOr<std::unique_ptr<Model>> Plan(const Checkpoint& checkpoint,
                                                     const ModelOptions& options,
                                                     const StepLimits& limits,
                                                     const Backend& backend, int64_t free_bytes);

  // Allocates what Plan says (and fails if anything differs), quantizes tensor by tensor, builds
  // the tokenizer. `progress` is called on this thread; `cancelled` is polled between tensors.
  // Errors: as Plan; FAILED_PRECONDITION when the ledger refuses; INVALID_ARGUMENT naming tensor
  // and index of a NaN; DATA_LOSS; CANCELLED.
  static absl::StatusOr<std::unique_ptr<Model>> Load(
      std::string name, const Checkpoint& checkpoint, const ModelOptions& options,
      const StepLimits& limits, Backend* backend, Ledger* ledger,
      const std::function<void(const LoadProgress&)>& progress,
      const std::function<bool()>& cancelled);
  virtual ~Model();

  const std::string& name() const { return name_; }
  const ModelConfig& config() const { return config_; }
  const ModelOptions& options() const { return options_; }  // with the defaults filled in
  const MemoryPlan& plan() const { return plan_; }
  // What the workspace is sized for: an encoder's max_rows admits its longest input.
  const StepLimits& limits() const { return limits_; }
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }             // may be null
  const ChatTemplate* chat_template() const { return chat_template_.get(); }  // may be null
  const KvCache& kv_cache() const { return kv_; }  // zero pages for encoders
  // Positions of one sequence; never more than the KV cache holds.
  int64_t max_context() const { return options_.max_context; }
  const std::string& bos_token() const { return bos_token_; }
  const std::string& eos_token() const { return eos_token_; }
  const GemmCalls& gemm_calls() const { return gemm_calls_; }  // engine thread

  virtual bool can_generate() const = 0;
  virtual bool can_embed() const = 0;

  // Computes a step; results are in step->sampled or step->pooled when it returns. `sampled` grows
  // but never shrinks, so that its vectors keep their memory: one per plan, then leftovers.
  // Errors: INTERNAL when the device failed (the step's sequences fail, nothing else);
  // FAILED_PRECONDITION when the model cannot do this.
  virtual absl::Status Decode(DecodeStep* step) = 0;
  virtual absl::Status Encode(EncodeStep* step) = 0;

 protected:
  static absl::StatusOr<std::unique_ptr<Model>> PrepareAndReserve(
      const std::string& name, const Checkpoint& checkpoint, const ModelOptions& options,
      const StepLimits& limits, const Backend& backend, Ledger* ledger);
  absl::Status ReadText(const Checkpoint& checkpoint);
  absl::Status DrawPlan(const Backend& backend, int64_t free_bytes);
  absl::Status Allocate(Backend* backend);
  // INTERNAL if a kind of memory took another number of bytes than the plan says.
  absl::Status CheckUse();
  Buffer& Memory(MemoryKind kind) { return memory_[static_cast<size_t>(kind)]; }
  // Backend::MatMul, counted.
  void MatMul(const Activations& x, std::span<const MatMulPart> parts);
  // Lends the backend this model's scratch memory; every step begins with it. A step over the
  // limits is our bug and aborts.
  void BeginStep(size_t rows, size_t sequences);

  Reservation reservation_;  // first: given back after the memory itself
  std::string name_;
  ModelConfig config_;
  ModelOptions options_;
  MemoryPlan plan_;
  StepLimits limits_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
  std::string bos_token_, eos_token_;
  KvCache kv_;
  Backend* backend_ = nullptr;
  std::unique_ptr<Inventory> inventory_;
  std::unique_ptr<Workspace> workspace_;
  std::array<Buffer, kNumMemoryKinds> memory_;
  BackendLimits device_limits_;
  int64_t scratch_bytes_ = 0;  // for them
  GemmCalls gemm_calls_ = {};
};

}  // namespace nibble
