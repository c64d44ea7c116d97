// What the client commands share: how to reach a server, and how to say that a call failed.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "service/flags.h"

namespace nibble {

struct ClientOptions {
  std::string target = "127.0.0.1:50051";
  std::string tls_ca;      // PEM file; empty: plaintext
  std::string token_file;  // bearer token, first line
  absl::Duration timeout = absl::InfiniteDuration();
};

// --target, --tls-ca, --token-file, --timeout.
void AddClientFlags(Flags* flags, ClientOptions* options);

// Errors: NOT_FOUND when a file cannot be read.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ClientOptions& options);

// Deadline and credentials of one call.
absl::Status Prepare(const ClientOptions& options, grpc::ClientContext* context);

// "nibble generate: NOT_FOUND: no model ... (MODEL_NOT_FOUND)" on stderr; returns exit code 1.
int ReportFailure(const char* command, const grpc::Status& status);
int ReportFailure(const char* command, const absl::Status& status);

// Parses, prints help or the usage error. True: go on; false: return *exit_code.
bool ParseOrExplain(const char* command, Flags* flags, const std::vector<std::string>& args,
                    int* exit_code);

}  // namespace nibble
