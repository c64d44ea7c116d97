// A grpc::Server behind an accept loop of ours: limits, keepalive, health, reflection.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "service/acceptor.h"
#include "service/server_options.h"

namespace nibble {

class GrpcListener {
 public:
  struct Wanted {
    std::shared_ptr<grpc::ServerCredentials> credentials;
    std::vector<grpc::Service*> services;  // health comes by itself
    bool reflection = false;
    std::function<void(int error)> on_accept_failure;
  };

  // Answers RPCs when it returns. The services must outlive it. Errors: INTERNAL.
  static absl::StatusOr<std::unique_ptr<GrpcListener>> Start(Listener listener,
                                                             const ServerOptions& options,
                                                             Wanted wanted);
  ~GrpcListener();  // Shutdown at once
  GrpcListener(const GrpcListener&) = delete;
  GrpcListener& operator=(const GrpcListener&) = delete;

  const Listener& listener() const { return acceptor_->listener(); }
  grpc::HealthCheckServiceInterface* health() const { return server_->GetHealthCheckService(); }
  // Accepts no more, waits for the open RPCs until `deadline`, cancels the rest.
  void Shutdown(absl::Time deadline);

 private:
  GrpcListener() = default;

  grpc::CallbackGenericService unimplemented_;  // what answers when no service does
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Acceptor> acceptor_;
};

}  // namespace nibble
