// The living floor's front: models in, requests in, tokens out. One engine thread per device plans,
// runs and settles steps; every public method may be called from any thread that may wait a little
// (encoding a prompt, loading a model), none needs the engine thread's state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/memory/ledger.h"
#include "engine/model/model.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "engine/token_sink.h"
#include "kernels/backend.h"

namespace nibble {

// Published caps; a request over one is INVALID_ARGUMENT. GetServerInfo shows them.
struct RequestCaps {
  int32_t max_n = 16;
  int32_t max_stop_strings = 16;
  int32_t max_stop_bytes = 256;  // of one stop string
  int32_t max_stop_token_ids = 256;
  int32_t max_logit_bias = 1024;
  int32_t max_logprobs = 20;
  int32_t max_output_tokens = 0;  // 0: the context
  int32_t max_messages = 1024;
  int32_t max_inputs = 2048;  // of one Embed, Tokenize or Detokenize call
  int64_t max_prompt_bytes = 4 << 20;
};

struct EngineOptions {
  BackendOptions backend;
  int64_t memory_bytes = 0;  // budget; 0: 80 % of the cgroup's limit, else of RAM
  RequestCaps caps;
  StepLimits limits;
  double step_budget_ms = 50;          // no step is planned to take longer
  int64_t max_queued_requests = 1024;  // per model, not yet running
  int64_t max_queued_tokens = 1 << 20;
};

struct LoadRequest {
  std::string name;    // [A-Za-z0-9._-]{1,64}
  std::string source;  // path
  ModelOptions options;
  absl::Time deadline = absl::InfiniteFuture();
};

enum class ModelState : uint8_t { kLoading, kReady, kUnloading };

struct ModelDescription {
  std::string name;
  std::string source;
  ModelState state = ModelState::kReady;
  ModelConfig config;
  ModelOptions options;  // with the defaults filled in
  std::string compute;   // "fp32"
  std::string device;
  bool can_generate = false;
  bool can_embed = false;
  bool has_tokenizer = false;
  bool has_chat_template = false;
  int64_t max_context = 0;
  int64_t kv_tokens = 0;  // positions that the KV cache holds
  int64_t parameters = 0;
  MemoryPlan memory;
};

using RequestId = uint64_t;

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  // Cancels what still runs and joins the engine thread.
  ~Engine();

  // --- models ---

  // Loads on the calling thread; requests for other models run meanwhile.
  // Errors: ALREADY_EXISTS, INVALID_ARGUMENT (name, option), FAILED_PRECONDITION (does not fit),
  // and the loader's.
  absl::StatusOr<ModelDescription> LoadModel(
      const LoadRequest& request, const std::function<void(const LoadProgress&)>& progress);
  // Refuses new work at once, waits for what runs, cancels it at `deadline`, frees everything, then
  // returns. Errors: NOT_FOUND; UNAVAILABLE while it is still loading or already unloading.
  absl::Status UnloadModel(const std::string& name, absl::Time deadline);
  // The plan that LoadModel would carry out, and the description; nothing is loaded but the
  // tokenizer, to measure it.
  absl::StatusOr<ModelDescription> EstimateModel(const LoadRequest& request);
  std::vector<ModelDescription> ListModels() const;  // by name; loading ones too
  absl::StatusOr<ModelDescription> GetModel(const std::string& name) const;

  // --- requests ---

  // Checks, renders, encodes and queues. After OK the sink hears exactly one OnDone; after an
  // error, nothing. Errors: the contract's table.
  absl::StatusOr<RequestId> Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink);
  absl::StatusOr<RequestId> Submit(EmbedRequest request, std::shared_ptr<TokenSink> sink);
  // The request ends within one step with `status` (CANCELLED, ABORTED …). Unknown or finished ids
  // are ignored. Never waits.
  void Cancel(RequestId id, absl::Status status);

  // One Encoding per text. Errors: NOT_FOUND, FAILED_PRECONDITION (no tokenizer), INVALID_ARGUMENT
  // with the index.
  absl::StatusOr<std::vector<Encoding>> Tokenize(const std::string& model,
                                                 const std::vector<std::string>& texts,
                                                 bool add_special_tokens, bool offsets) const;
  absl::StatusOr<std::vector<std::string>> Detokenize(
      const std::string& model, const std::vector<std::vector<int32_t>>& tokens,
      bool skip_special_tokens) const;

  // --- the process ---

  // New requests are UNAVAILABLE from now on. Returns when nothing runs, or at `deadline` after
  // cancelling the rest.
  void Drain(absl::Time deadline);
  EngineStats Stats() const;
  const EngineOptions& options() const;  // with the defaults filled in
  std::string device() const;
  std::string isa() const;
  int num_threads() const;
  // Time since the engine thread last finished a step while work was waiting; zero when idle. For
  // the watchdog.
  absl::Duration StalledFor() const;

 private:
  class Core;
  explicit Engine(std::unique_ptr<Core> core);
  std::unique_ptr<Core> core_;
};

}  // namespace nibble
