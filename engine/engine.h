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
#include "engine/model_description.h"
#include "engine/request.h"
#include "engine/request_caps.h"
#include "engine/stats.h"
#include "engine/token_sink.h"
#include "kernels/backend.h"

namespace nibble {

struct EngineOptions {
  BackendOptions backend;
  // Budget; 0: what the device says it has, else 80 % of the cgroup's limit, else of RAM.
  int64_t memory_bytes = 0;
  RequestCaps caps;
  StepLimits limits;
  double step_budget_ms = 50;          // no step is planned longer, or than two of one row
  int64_t max_queued_requests = 1024;  // per model, not yet running
  int64_t max_queued_tokens = 1 << 20;
};

struct LoadRequest {
  std::string name;    // [A-Za-z0-9._-]{1,64}
  std::string source;  // path
  ModelOptions options;
  absl::Time deadline = absl::InfiniteFuture();
};

struct LoadedModel {
  std::unique_ptr<Model> model;
  int64_t parameters = 0;  // values of the checkpoint's tensors
};

// Where a load puts things, and whom it tells.
struct LoadTarget {
  StepLimits limits;
  Backend* backend = nullptr;
  Ledger* ledger = nullptr;
  std::function<void(const LoadProgress&)> progress;
  std::function<bool()> cancelled;
};

// What an engine stands on. Create takes the real things; tests take a model that is a table and a
// clock that stands still. Both functions are called by any thread.
struct EngineParts {
  std::unique_ptr<Backend> backend;
  std::function<absl::Time()> clock;
  // Errors: as Model::Load; CANCELLED when target.cancelled said so.
  std::function<absl::StatusOr<LoadedModel>(const LoadRequest&, const LoadTarget&)> load;
};

class Engine {
 public:
  // Errors: INVALID_ARGUMENT (an option out of range), FAILED_PRECONDITION (the budget does not
  // hold what the device takes for itself), and MakeBackend's.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  Engine(const EngineOptions& options, EngineParts parts);
  // Cancels what still runs and joins the engine thread. Nothing may call the engine any more.
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
  // The device is gone for good: every step fails from now on, and only a new process helps.
  bool DeviceLost() const;
  // Time since the engine thread last finished a step while work was waiting; zero when idle. For
  // the watchdog.
  absl::Duration StalledFor() const;

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

}  // namespace nibble
