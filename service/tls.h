// The server's credentials from PEM files, checked at start and read again when they change.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "absl/status/statusor.h"
#include "service/server_options.h"

namespace nibble {

// Plaintext credentials when no file is named. Replace files by renaming, key and chain together:
// what gRPC finds broken fails new handshakes until it is whole again.
// Errors: INVALID_ARGUMENT (a certificate without its key, not PEM, not a pair, out of its time),
// NOT_FOUND, PERMISSION_DENIED.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(const TlsFiles& files);

}  // namespace nibble
