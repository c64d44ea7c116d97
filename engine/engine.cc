// Requests in, the engine's life, and what can be asked of it. Models: engine_models.cc.
#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/engine_core.h"
#include "engine/served_model.h"
#include "engine/status.h"

namespace nibble {
namespace {

EngineOptions Filled(EngineOptions options, const Backend& backend) {
  if (options.memory_bytes == 0) options.memory_bytes = backend.DeviceBytes();
  if (options.memory_bytes == 0) options.memory_bytes = DefaultMemoryBytes();
  options.backend.device = backend.device();
  options.backend.cpu_isa = backend.isa();
  options.backend.num_threads = backend.num_threads();
  options.backend.compute = backend.compute();
  return options;
}

absl::Status CheckOption(const char* name, double value, double least) {
  if (value >= least) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument, "OPTION_OUT_OF_RANGE",
               absl::StrCat(name, " is ", value, ", the least is ", least), name);
}

absl::Status CheckOptions(const EngineOptions& options) {
  const StepLimits& limits = options.limits;
  for (const absl::Status& status :
       {CheckOption("memory_bytes", static_cast<double>(options.memory_bytes), 0),
        CheckOption("limits.max_rows", static_cast<double>(limits.max_rows), 1),
        CheckOption("limits.max_sequences", static_cast<double>(limits.max_sequences), 1),
        CheckOption("limits.max_logit_rows", static_cast<double>(limits.max_logit_rows), 1),
        CheckOption("step_budget_ms", options.step_budget_ms, 0.1),
        CheckOption("max_queued_requests", static_cast<double>(options.max_queued_requests), 1),
        CheckOption("max_queued_tokens", static_cast<double>(options.max_queued_tokens), 1)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The backend's own memory must fit before anything else is asked for.
Reservation ReserveOwnMemory(const Backend& backend, Ledger* ledger) {
  absl::StatusOr<Reservation> reserved = ledger->Reserve("", OwnMemoryPlan(backend));
  Check(reserved.ok(), "the budget holds what the device takes for itself");
  return *std::move(reserved);
}

}  // namespace

MemoryPlan OwnMemoryPlan(const Backend& backend) {
  const BackendMemory memory = backend.OwnMemory();
  MemoryPlan plan;
  if (memory.workspace > 0) {
    plan.items.push_back({MemoryKind::kWorkspace, "step inputs and results", memory.workspace});
  }
  if (memory.graphs > 0) plan.items.push_back({MemoryKind::kGraphs, "graphs", memory.graphs});
  return plan;
}

Engine::Core::Core(const EngineOptions& filled, EngineParts given)
    : options(filled),
      parts(std::move(given)),
      ledger(parts.backend->device(), options.memory_bytes),
      own_memory(ReserveOwnMemory(*parts.backend, &ledger)),
      loop(parts.backend.get(), parts.clock, options.step_budget_ms),
      intake(options.caps, parts.clock, &registry, &loop.inbox()) {}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(options.backend);
  if (!backend.ok()) return backend.status();
  Ledger trial((*backend)->device(), Filled(options, **backend).memory_bytes);
  const auto own = trial.Reserve("", OwnMemoryPlan(**backend));
  if (!own.ok()) return own.status();
  return std::make_unique<Engine>(
      options, EngineParts{*std::move(backend), [] { return absl::Now(); }, LoadFromDisk});
}

Engine::Engine(const EngineOptions& options, EngineParts parts) {
  const EngineOptions filled = Filled(options, *parts.backend);
  core_ = std::make_unique<Core>(filled, std::move(parts));
  core_->thread = std::thread([this] { core_->loop.Run(); });
}

Engine::~Engine() {
  Drain(absl::InfinitePast());
  core_->loop.inbox().Stop();
  core_->thread.join();
}

// --- requests ---

absl::StatusOr<RequestId> Engine::Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) {
  return core_->intake.Submit(std::move(request), std::move(sink));
}

absl::StatusOr<RequestId> Engine::Submit(EmbedRequest request, std::shared_ptr<TokenSink> sink) {
  return core_->intake.Submit(std::move(request), std::move(sink));
}

void Engine::Cancel(RequestId id, absl::Status status) {
  if (id == 0) return;
  core_->loop.inbox().Send(Cancellation{.id = id, .status = std::move(status)},
                           core_->parts.clock());
}

// --- the process ---

void Engine::Drain(absl::Time deadline) {
  core_->registry.Close();
  const absl::Time now = core_->parts.clock();
  if (core_->registry.WaitAllUnused(std::max(deadline - now, absl::ZeroDuration()))) return;
  core_->loop.inbox().Send(
      Cancellation{.status = Error(absl::StatusCode::kUnavailable, "DRAINING",
                                   "the server shut down before the answer was complete")},
      now);
  core_->registry.WaitAllUnused(absl::InfiniteDuration());
}

EngineStats Engine::Stats() const {
  EngineStats stats;
  core_->registry.ForEach([&](const std::string& name, const ServedModel& model) {
    stats.models.emplace(name, model.Stats());
  });
  stats.memory = core_->ledger.Snapshot();
  stats.device = core_->ledger.device();
  stats.memory_budget_bytes = core_->ledger.budget_bytes();
  return stats;
}

const EngineOptions& Engine::options() const { return core_->options; }
std::string Engine::device() const { return core_->parts.backend->device(); }
std::string Engine::isa() const { return core_->parts.backend->isa(); }
int Engine::num_threads() const { return core_->parts.backend->num_threads(); }

bool Engine::DeviceLost() const { return core_->parts.backend->IsLost(); }

absl::Duration Engine::StalledFor() const {
  return core_->loop.inbox().StalledFor(core_->parts.clock());
}

}  // namespace nibble
