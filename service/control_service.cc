// See the header.
#include "service/control_service.h"

#include "service/convert.h"
#include "service/durations.h"
#include "service/methods.h"
#include "service/unary_call.h"
#include "service/version.h"

namespace nibble {
namespace {

// Queued or running.
int64_t CountRequests(const EngineStats& stats) {
  int64_t requests = 0;
  for (const auto& [name, model] : stats.models) {
    for (const Operation op : {Operation::kGenerate, Operation::kEmbed}) {
      const auto i = static_cast<size_t>(op);
      requests += model.running[i] + model.waiting[i];
    }
  }
  return requests;
}

}  // namespace

grpc::ServerUnaryReactor* ControlService::GetServerInfo(grpc::CallbackServerContext* context,
                                                        const v1::GetServerInfoRequest*,
                                                        v1::GetServerInfoResponse* response) {
  const auto work = [this, response](Call*) -> absl::Status {
    Describe(response);
    return absl::OkStatus();
  };
  return UnaryCall::Start(parts_.door->Open(methods::kGetServerInfo, context), parts_.encoders,
                          work);
}

grpc::ServerUnaryReactor* ControlService::GetMemory(grpc::CallbackServerContext* context,
                                                    const v1::GetMemoryRequest*,
                                                    v1::GetMemoryResponse* response) {
  const auto work = [this, response](Call*) -> absl::Status {
    ToProto(parts_.engine->Stats(), response);
    return absl::OkStatus();
  };
  return UnaryCall::Start(parts_.door->Open(methods::kGetMemory, context), parts_.encoders, work);
}

grpc::ServerUnaryReactor* ControlService::Drain(grpc::CallbackServerContext* context,
                                                const v1::DrainRequest* request,
                                                v1::DrainResponse* response) {
  const auto work = [this, request, response](Call*) -> absl::Status {
    const absl::StatusOr<absl::Duration> timeout =
        MillisecondsOf("timeout_ms", request->has_timeout_ms(), request->timeout_ms(),
                       parts_.options->drain_timeout);
    if (!timeout.ok()) return timeout.status();
    response->set_requests(CountRequests(parts_.engine->Stats()));
    parts_.begin_drain(*timeout);
    return absl::OkStatus();
  };
  return UnaryCall::Start(parts_.door->Open(methods::kDrain, context), parts_.encoders, work);
}

void ControlService::Describe(v1::GetServerInfoResponse* response) const {
  const EngineOptions& options = parts_.engine->options();
  response->set_version(kVersion);
  response->set_device(parts_.engine->device());
  response->set_isa(parts_.engine->isa());
  response->set_num_threads(parts_.engine->num_threads());
  response->set_memory_budget_bytes(options.memory_bytes);
  response->set_uptime_ms(absl::ToDoubleMilliseconds(absl::Now() - parts_.started));
  response->set_draining(parts_.door->draining());
  response->set_model_loading(parts_.model_root->enabled());
  ToProto(options.caps, response->mutable_caps());
  ToProto(*parts_.options, response->mutable_limits());
}

}  // namespace nibble
