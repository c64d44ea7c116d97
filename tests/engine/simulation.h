// An engine without threads: a test submits, steps and moves the clock by hand, so that every run
// is the same run.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "engine/engine_loop.h"
#include "engine/intake.h"
#include "engine/registry.h"
#include "engine/served_model.h"
#include "tests/support/fake_backend.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/recording_sink.h"

namespace nibble {

struct SimulationOptions {
  double step_budget_ms = 50;
  AdmissionLimits admission{1024, 1 << 20};
  RequestCaps caps;
  // What a step takes.
  absl::Duration per_step = absl::Milliseconds(1);
  absl::Duration per_row = absl::Microseconds(100);
};

class Simulation {
 public:
  explicit Simulation(const SimulationOptions& options = {})
      : options_(options),
        loop_(
            &backend_, [this] { return clock.Now(); }, options.step_budget_ms),
        intake_(
            options.caps, [this] { return clock.Now(); }, &registry_, &loop_.inbox()) {}

  ~Simulation() {
    loop_.inbox().Send(Cancellation{.status = absl::CancelledError("the test is over")},
                       clock.Now());
    while (loop_.RunOnce()) {
    }
  }

  ServedModel* AddModel(const std::string& name, FakeModelOptions fake) {
    const auto hook = fake.on_step;
    fake.on_step = [this, hook](int64_t rows) {
      clock.Advance(options_.per_step + rows * options_.per_row);
      if (hook) hook(rows);
    };
    auto model = std::make_unique<FakeModel>(name, fake);
    ModelDescription description;
    description.name = name;
    description.can_generate = model->can_generate();
    description.can_embed = model->can_embed();
    EXPECT_TRUE(registry_.BeginLoad(description).ok());
    registry_.FinishLoad(description,
                         std::make_unique<ServedModel>(std::move(model), options_.admission));
    return registry_.Peek(name);
  }

  // A request that must be admitted.
  template <typename Request>
  std::shared_ptr<RecordingSink> Submit(Request request, RequestId* id = nullptr) {
    auto sink = std::make_shared<RecordingSink>();
    const absl::StatusOr<RequestId> submitted = intake_.Submit(std::move(request), sink);
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    if (submitted.ok() && id != nullptr) *id = *submitted;
    return sink;
  }
  // A request that must be refused.
  template <typename Request>
  absl::Status Refused(Request request) {
    const absl::StatusOr<RequestId> submitted =
        intake_.Submit(std::move(request), std::make_shared<RecordingSink>());
    EXPECT_FALSE(submitted.ok());
    return submitted.status();
  }
  template <typename Request>
  absl::StatusOr<RequestId> TrySubmit(Request request, std::shared_ptr<TokenSink> sink) {
    return intake_.Submit(std::move(request), std::move(sink));
  }

  void Cancel(RequestId id, absl::Status status) {
    loop_.inbox().Send(Cancellation{.id = id, .status = std::move(status)}, clock.Now());
  }
  bool Step() { return loop_.RunOnce(); }
  void Run() {
    while (loop_.RunOnce()) {
    }
  }
  size_t num_jobs() const { return loop_.num_jobs(); }

  FakeClock clock;

 private:
  const SimulationOptions options_;
  FakeBackend backend_;
  EngineLoop loop_;
  ModelRegistry registry_;
  Intake intake_;
};

inline GenerateRequest TokensRequest(std::vector<int32_t> ids, int32_t max_tokens) {
  GenerateRequest request;
  request.prompt = TokenPrompt{std::move(ids)};
  request.stopping.max_tokens = max_tokens;
  return request;
}

}  // namespace nibble
