// nibble.v1.Models: what is loaded, what a load would take, loading and unloading.
#pragma once

#include "nibble/v1/models.grpc.pb.h"
#include "service/parts.h"

namespace nibble {

class ModelService final : public v1::Models::CallbackService {
 public:
  explicit ModelService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;
  grpc::ServerUnaryReactor* EstimateModel(grpc::CallbackServerContext* context,
                                          const v1::EstimateModelRequest* request,
                                          v1::EstimateModelResponse* response) override;
  grpc::ServerWriteReactor<v1::LoadProgress>* LoadModel(
      grpc::CallbackServerContext* context, const v1::LoadModelRequest* request) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context,
                                        const v1::UnloadModelRequest* request,
                                        v1::UnloadModelResponse* response) override;

 private:
  absl::Status Estimate(const v1::EstimateModelRequest& request,
                        v1::EstimateModelResponse* response) const;
  absl::Status Unload(const v1::UnloadModelRequest& request, absl::Time call_deadline) const;

  const ServiceParts& parts_;
};

}  // namespace nibble
