// `nibble health`: one question to grpc.health.v1, one word as the answer; for container probes.
#include <cstdio>

#include "grpc/health/v1/health.grpc.pb.h"
#include "service/client.h"
#include "service/commands.h"

namespace nibble {

int RunHealth(const Arguments& args) {
  ClientOptions client;
  client.timeout = absl::Seconds(2);
  std::string service;
  Flags flags("nibble health [--target HOST:PORT] [--service NAME]",
              "Exits with 0 if the server says SERVING, else with 1.");
  flags.Group("Request");
  flags.Add("service", &service, "NAME",
            "Empty: the process; nibble.v1.Inference: ready to serve; nibble.v1.Inference/MODEL: "
            "that model.");
  AddClientFlags(&flags, &client);
  int code = 0;
  if (!ParseOrExplain("health", &flags, args, &code)) return code;
  auto channel = Connect(client);
  if (!channel.ok()) return ReportFailure("health", channel.status());
  grpc::ClientContext context;
  if (const absl::Status status = Prepare(client, &context); !status.ok()) {
    return ReportFailure("health", status);
  }
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status =
      grpc::health::v1::Health::NewStub(*channel)->Check(&context, request, &response);
  if (!status.ok()) return ReportFailure("health", status);
  std::printf("%s\n",
              grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status()).c_str());
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING ? 0 : 1;
}

}  // namespace nibble
