// See the header.
#include "service/unary_call.h"

#include <utility>

#include "service/parts.h"

namespace nibble {

UnaryCall* UnaryCall::Start(std::unique_ptr<Call> call, Workers* workers, Work work) {
  auto* const unary = new UnaryCall(std::move(call), std::move(work));
  absl::Status status = unary->call_->admission();
  if (status.ok() && !workers->TryPost([unary] { unary->Run(); })) status = ServerBusy();
  if (!status.ok()) unary->Finish(unary->call_->Close(status));
  return unary;
}

UnaryCall::UnaryCall(std::unique_ptr<Call> call, Work work)
    : call_(std::move(call)), work_(std::move(work)) {}

void UnaryCall::Run() {
  const bool is_gone = call_->grpc_context()->IsCancelled();
  const absl::Status status = is_gone ? call_->Cancellation() : work_(call_.get());
  Finish(call_->Close(status));
}

void UnaryCall::OnDone() { delete this; }

}  // namespace nibble
