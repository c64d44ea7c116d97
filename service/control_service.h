// nibble.v1.Control: what the server is, what it holds, and how it ends.
#pragma once

#include "nibble/v1/control.grpc.pb.h"
#include "service/parts.h"

namespace nibble {

class ControlService final : public v1::Control::CallbackService {
 public:
  explicit ControlService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetMemory(grpc::CallbackServerContext* context,
                                      const v1::GetMemoryRequest* request,
                                      v1::GetMemoryResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  void Describe(v1::GetServerInfoResponse* response) const;

  const ServiceParts& parts_;
};

}  // namespace nibble
