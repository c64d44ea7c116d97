// One Generate stream's gRPC state: one write in flight, finished exactly once. Knows no token's
// meaning.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "nibble/v1/inference.pb.h"
#include "service/cancel_latch.h"
#include "service/parts.h"
#include "service/token_queue.h"

namespace nibble {

// Thread rule: gRPC's threads, a worker and the stall watch call in at any time; `mutex_` guards
// who may touch the stream. Lives by shared_ptr: its own until OnDone, and one of every task about
// it.
//   1. `busy_` is set by whoever starts an operation on the stream and cleared by OnWriteDone only;
//      nothing else is started meanwhile.
//   2. Every stream ends through its queue: a refused or cancelled one gets its status there too.
//   3. After Finish (busy_ for ever) nothing is started.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  // Starts the stream; gRPC owns the result until OnDone, and the request lives so long.
  static GenerateReactor* Start(const ServiceParts& parts, std::unique_ptr<Call> call,
                                const v1::GenerateRequest& request);

  // Cancels the request when a write has not been taken for `limit` (ABORTED, SLOW_READER), and the
  // stream itself when it has not for another one.
  void CheckStall(absl::Time now, absl::Duration limit);

 private:
  GenerateReactor(const ServiceParts& parts, std::unique_ptr<Call> call, bool token_ids);
  void Submit(const v1::GenerateRequest& proto);  // on a worker: converts and encodes
  void SchedulePump();                            // from any thread, the engine's included
  void Pump();
  void Count(const GenerateChunk& chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  const ServiceParts& parts_;
  const RequestContext context_;
  const bool token_ids_;  // wanted by the client
  CancelLatch cancel_;
  std::shared_ptr<TokenQueue> queue_;
  std::shared_ptr<GenerateReactor> self_;
  std::atomic<bool> pump_scheduled_ = false;

  absl::Mutex mutex_;
  std::unique_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);  // null after OnDone
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time busy_since_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse response_;  // of the write in flight
};

}  // namespace nibble
