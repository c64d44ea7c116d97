// One Embed call: submitted on a worker, answered when the engine has the vectors.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>

#include "engine/token_sink.h"
#include "nibble/v1/inference.pb.h"
#include "service/cancel_latch.h"
#include "service/parts.h"

namespace nibble {

// Lives by shared_ptr: its own until OnDone, and one of every task about it. Finishes when the
// engine is done with it, never before, so the engine may hold the sink without a lock.
class EmbedReactor final : public grpc::ServerUnaryReactor,
                           public std::enable_shared_from_this<EmbedReactor> {
 public:
  // Starts the call; gRPC owns the result until OnDone, and request and response live so long.
  static EmbedReactor* Start(const ServiceParts& parts, std::unique_ptr<Call> call,
                             const v1::EmbedRequest& request, v1::EmbedResponse* response);

 private:
  class Sink;

  EmbedReactor(const ServiceParts& parts, std::unique_ptr<Call> call, v1::EmbedResponse* response);
  absl::Status Begin(const v1::EmbedRequest& request);
  void Submit(const v1::EmbedRequest& proto);  // on a worker: converts and encodes
  void Complete(const absl::Status& status);

  void OnCancel() override;
  void OnDone() override;

  const ServiceParts& parts_;
  const std::unique_ptr<Call> call_;
  v1::EmbedResponse* const response_;
  v1::Encoding encoding_ = v1::ENCODING_FLOAT;
  CancelLatch cancel_;
  std::optional<EmbedResult> result_;  // written by the engine before its OnDone
  std::shared_ptr<EmbedReactor> self_;
};

}  // namespace nibble
