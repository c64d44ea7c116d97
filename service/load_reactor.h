// One LoadModel stream: the latest progress, one write in flight. The load itself belongs to a
// worker and goes on if the client leaves.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "nibble/v1/models.pb.h"
#include "service/parts.h"

namespace nibble {

// Lives by shared_ptr: its own until OnDone, and the loading task's. Progress that comes faster
// than the client reads is replaced by the newest.
class LoadReactor final : public grpc::ServerWriteReactor<v1::LoadProgress>,
                          public std::enable_shared_from_this<LoadReactor> {
 public:
  // Starts the stream and the load; gRPC owns the result until OnDone.
  static LoadReactor* Start(const ServiceParts& parts, std::unique_ptr<Call> call,
                            const v1::LoadModelRequest& request);

 private:
  LoadReactor(const ServiceParts& parts, std::unique_ptr<Call> call);
  absl::Status Begin(const v1::LoadModelRequest& request);
  void Load(const LoadRequest& request);  // on a loader thread
  void Offer(const v1::LoadProgress& progress);
  void End(const absl::Status& status);
  void Pump();

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  const ServiceParts& parts_;
  std::shared_ptr<LoadReactor> self_;

  absl::Mutex mutex_;
  std::unique_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);  // null after OnDone
  std::optional<v1::LoadProgress> next_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;  // an operation is in flight, or all is finished
  v1::LoadProgress writing_;                   // of the write in flight
};

}  // namespace nibble
