// Proto ↔ engine structs, absl::Status → grpc::Status with google.rpc details. These functions
// (convert_*.cc) are the only ones that name both sides. They check what only the wire can get
// wrong (an unknown enum value, a missing oneof); ranges are the engine's.
#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "nibble/v1/control.pb.h"
#include "nibble/v1/inference.pb.h"
#include "nibble/v1/models.pb.h"
#include "service/server_options.h"

namespace nibble {

// --- convert_status.cc ---

struct WireStatus {
  grpc::Status status;  // with google.rpc.Status in its details, unless OK
  std::vector<std::pair<std::string, std::string>> trailers;
  std::string reason;  // of ErrorInfo; the code's name when the status carries none; "" if OK
};
// Messages are cut at 1,024 bytes and made valid UTF-8: a status travels in HTTP/2 headers.
WireStatus ToWire(const absl::Status& status, const std::string& request_id);

// --- convert_inference.cc ---

// Errors: INVALID_ARGUMENT.
absl::StatusOr<GenerateRequest> FromProto(const v1::GenerateRequest& proto);
absl::StatusOr<EmbedRequest> FromProto(const v1::EmbedRequest& proto);

// Clears *proto first. token_ids: whether the client asked for them.
void ToProto(GenerateChunk chunk, bool token_ids, v1::GenerateResponse* proto);

// How the numbers of a vector travel. Errors: INVALID_ARGUMENT (unknown value).
absl::StatusOr<v1::Encoding> EncodingOf(const v1::EmbedRequest& proto);
void ToProto(const EmbedResult& result, v1::Encoding encoding, v1::EmbedResponse* proto);

void ToProto(const std::vector<Encoding>& encodings, v1::TokenizeResponse* proto);
std::vector<std::vector<int32_t>> TokensOf(const v1::DetokenizeRequest& proto);

// --- convert_models.cc ---

// device, compute: the server's; options.device and options.compute must be they, auto or absent.
// Errors: INVALID_ARGUMENT, UNIMPLEMENTED (what is of a later version, by name).
absl::StatusOr<ModelOptions> FromProto(const v1::LoadOptions& proto, const std::string& device,
                                       Compute compute);
void ToProto(const ModelDescription& model, v1::Model* proto);
void ToProto(const MemoryItem& item, v1::MemoryItem* proto);
void ToProto(const LoadProgress& progress, v1::LoadProgress* proto);
void ToProto(const RequestCaps& caps, v1::Caps* proto);
void ToProto(const ServerOptions& options, v1::Limits* proto);
void ToProto(const EngineStats& stats, v1::GetMemoryResponse* proto);

}  // namespace nibble
