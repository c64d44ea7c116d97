// See the header.
#include "service/model_service.h"

#include <algorithm>

#include "engine/status.h"
#include "service/convert.h"
#include "service/durations.h"
#include "service/load_model.h"
#include "service/load_reactor.h"
#include "service/methods.h"
#include "service/unary_call.h"

namespace nibble {

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* context,
                                                   const v1::ListModelsRequest*,
                                                   v1::ListModelsResponse* response) {
  const auto work = [this, response](Call*) -> absl::Status {
    for (const ModelDescription& model : parts_.engine->ListModels()) {
      ToProto(model, response->add_models());
    }
    return absl::OkStatus();
  };
  return UnaryCall::Start(parts_.door->Open(methods::kListModels, context), parts_.encoders, work);
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* context,
                                                 const v1::GetModelRequest* request,
                                                 v1::GetModelResponse* response) {
  const auto work = [this, request, response](Call* call) -> absl::Status {
    call->record()->model = request->name();
    const absl::StatusOr<ModelDescription> model = parts_.engine->GetModel(request->name());
    if (model.ok()) ToProto(*model, response->mutable_model());
    return model.status();
  };
  return UnaryCall::Start(parts_.door->Open(methods::kGetModel, context), parts_.encoders, work);
}

grpc::ServerUnaryReactor* ModelService::EstimateModel(grpc::CallbackServerContext* context,
                                                      const v1::EstimateModelRequest* request,
                                                      v1::EstimateModelResponse* response) {
  const auto work = [this, request, response](Call*) { return Estimate(*request, response); };
  return UnaryCall::Start(parts_.door->Open(methods::kEstimateModel, context), parts_.loaders,
                          work);
}

grpc::ServerWriteReactor<v1::LoadProgress>* ModelService::LoadModel(
    grpc::CallbackServerContext* context, const v1::LoadModelRequest* request) {
  return LoadReactor::Start(parts_, parts_.door->Open(methods::kLoadModel, context), *request);
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(grpc::CallbackServerContext* context,
                                                    const v1::UnloadModelRequest* request,
                                                    v1::UnloadModelResponse*) {
  const auto work = [this, request](Call* call) {
    call->record()->model = request->name();
    return Unload(*request, call->context().deadline);
  };
  return UnaryCall::Start(parts_.door->Open(methods::kUnloadModel, context), parts_.loaders, work);
}

absl::Status ModelService::Estimate(const v1::EstimateModelRequest& request,
                                    v1::EstimateModelResponse* response) const {
  const absl::StatusOr<LoadRequest> load =
      MakeLoadRequest(parts_, "", request.source(), request.options());
  if (!load.ok()) return load.status();
  const absl::StatusOr<ModelDescription> model = Estimated(parts_, *load);
  if (!model.ok()) return model.status();
  ToProto(*model, response->mutable_model());
  response->mutable_model()->clear_state();
  for (const MemoryItem& item : model->memory.items) ToProto(item, response->add_items());
  const EngineStats stats = parts_.engine->Stats();
  int64_t free_bytes = stats.memory_budget_bytes;
  for (const Ledger::Entry& entry : stats.memory) free_bytes -= entry.bytes;
  response->set_total_bytes(model->memory.Total());
  response->set_free_bytes(free_bytes);
  response->set_fits(model->memory.Total() <= free_bytes);
  return absl::OkStatus();
}

absl::Status ModelService::Unload(const v1::UnloadModelRequest& request,
                                  absl::Time call_deadline) const {
  if (!parts_.model_root->enabled()) return parts_.model_root->Resolve("").status();
  const absl::StatusOr<absl::Duration> timeout = MillisecondsOf(
      "timeout_ms", request.has_timeout_ms(), request.timeout_ms(), parts_.options->drain_timeout);
  if (!timeout.ok()) return timeout.status();
  return StopAndUnload(parts_, request.name(), std::min(absl::Now() + *timeout, call_deadline));
}

}  // namespace nibble
