// The way in for requests, on the submitting thread: a model's lease, a job, a place in the queue,
// the hand-over to the engine thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/inbox.h"
#include "engine/registry.h"
#include "engine/request.h"
#include "engine/request_caps.h"
#include "engine/token_sink.h"

namespace nibble {

// Thread-safe. What it is given outlives it.
class Intake {
 public:
  Intake(const RequestCaps& caps, std::function<absl::Time()> clock, ModelRegistry* registry,
         Inbox* inbox)
      : caps_(caps), clock_(std::move(clock)), registry_(registry), inbox_(inbox) {}

  // As Engine::Submit.
  absl::StatusOr<RequestId> Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink);
  absl::StatusOr<RequestId> Submit(EmbedRequest request, std::shared_ptr<TokenSink> sink);

 private:
  absl::StatusOr<ModelLease> Admit(const std::string& model, Operation op, RequestContext* context);
  absl::StatusOr<RequestId> Enqueue(std::unique_ptr<Job> job, std::shared_ptr<TokenSink> sink);

  const RequestCaps caps_;
  const std::function<absl::Time()> clock_;
  ModelRegistry* const registry_;
  Inbox* const inbox_;
  std::atomic<RequestId> last_id_ = 0;
};

}  // namespace nibble
