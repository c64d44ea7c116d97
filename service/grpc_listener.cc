// See the header.
#include "service/grpc_listener.h"

#include <grpc/impl/codegen/grpc_types.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>

#include "engine/status.h"

namespace nibble {
namespace {

// Reflection registers itself in every server as soon as its library is linked; this takes it out
// of a server that shall not have it.
class NoReflection : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const auto& plugin) {
      return dynamic_cast<grpc::reflection::ProtoServerReflectionPlugin*>(plugin.get()) != nullptr;
    });
  }
};

// The two process-wide switches of gRPC, set before the first server is built.
void EnablePlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

// gRPC's arguments are ints of milliseconds; INT_MAX means never.
int Milliseconds(absl::Duration duration) {
  return static_cast<int>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(duration), 1, std::numeric_limits<int>::max()));
}

void SetLimits(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(
      std::min<int64_t>(options.max_receive_message_bytes, std::numeric_limits<int>::max())));
  const std::pair<const char*, int> arguments[] = {
      {GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes},
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams},
      {GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time)},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout)},
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000},
      {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(options.handshake_timeout)},
      {GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(options.max_connection_age)},
      {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(options.max_connection_age_grace)},
  };
  for (const auto& [name, value] : arguments) builder->AddChannelArgument(name, value);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcListener>> GrpcListener::Start(Listener listener,
                                                                  const ServerOptions& options,
                                                                  Wanted wanted) {
  EnablePlugins();
  std::unique_ptr<GrpcListener> result(new GrpcListener);
  grpc::ServerBuilder builder;
  SetLimits(options, &builder);
  if (!wanted.reflection) builder.SetOption(std::make_unique<NoReflection>());
  for (grpc::Service* service : wanted.services) builder.RegisterService(service);
  // gRPC polls only for a service with callbacks; health alone is none.
  if (wanted.services.empty()) builder.RegisterCallbackGenericService(&result->unimplemented_);
  result->connections_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, wanted.credentials);
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr) return absl::InternalError("gRPC could not start its server");
  Acceptor::Hooks hooks;
  hooks.on_connection = [connections = result->connections_.get()](int listener_fd, int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.listener_fd = listener_fd;
    connection.fd = fd;
    connections->HandleNewConnection(&connection);
  };
  hooks.on_failure = std::move(wanted.on_accept_failure);
  result->acceptor_ =
      std::make_unique<Acceptor>(std::move(listener), options.max_connections, std::move(hooks));
  return result;
}

GrpcListener::~GrpcListener() { Shutdown(absl::InfinitePast()); }

void GrpcListener::Shutdown(absl::Time deadline) {
  if (acceptor_ == nullptr) return;
  acceptor_.reset();
  server_->Shutdown(absl::ToChronoTime(deadline));
}

}  // namespace nibble
