// nibble.v1.Inference: one method per RPC; each converts, submits and returns the reactor.
#pragma once

#include "nibble/v1/inference.grpc.pb.h"
#include "service/parts.h"

namespace nibble {

class InferenceService final : public v1::Inference::CallbackService {
 public:
  explicit InferenceService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context,
                                  const v1::EmbedRequest* request,
                                  v1::EmbedResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;

 private:
  const ServiceParts& parts_;
};

}  // namespace nibble
