// A call whose whole work is one function on a worker thread: Tokenize, GetModel, Unload …
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "service/door.h"
#include "service/workers.h"

namespace nibble {

// Owns itself until OnDone; the request and the response live so long.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  using Work = absl::AnyInvocable<absl::Status(Call* call)>;

  // Runs `work` on `workers` unless the call is refused at the door or its client has left, and
  // finishes with its status.
  static UnaryCall* Start(std::unique_ptr<Call> call, Workers* workers, Work work);

 private:
  UnaryCall(std::unique_ptr<Call> call, Work work);
  void Run();
  void OnDone() override;

  const std::unique_ptr<Call> call_;
  Work work_;
};

}  // namespace nibble
