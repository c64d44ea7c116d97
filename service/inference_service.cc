// See the header.
#include "service/inference_service.h"

#include "service/convert.h"
#include "service/embed_reactor.h"
#include "service/generate_reactor.h"
#include "service/methods.h"
#include "service/unary_call.h"

namespace nibble {

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return GenerateReactor::Start(parts_, parts_.door->Open(methods::kGenerate, context), *request);
}

grpc::ServerUnaryReactor* InferenceService::Embed(grpc::CallbackServerContext* context,
                                                  const v1::EmbedRequest* request,
                                                  v1::EmbedResponse* response) {
  return EmbedReactor::Start(parts_, parts_.door->Open(methods::kEmbed, context), *request,
                             response);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  const auto work = [this, request, response](Call* call) -> absl::Status {
    call->record()->model = request->model();
    const absl::StatusOr<std::vector<Encoding>> encodings = parts_.engine->Tokenize(
        request->model(), {request->texts().begin(), request->texts().end()},
        !request->has_add_special_tokens() || request->add_special_tokens(), request->offsets());
    if (encodings.ok()) ToProto(*encodings, response);
    return encodings.status();
  };
  return UnaryCall::Start(parts_.door->Open(methods::kTokenize, context), parts_.encoders, work);
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  const auto work = [this, request, response](Call* call) -> absl::Status {
    call->record()->model = request->model();
    const absl::StatusOr<std::vector<std::string>> texts = parts_.engine->Detokenize(
        request->model(), TokensOf(*request),
        !request->has_skip_special_tokens() || request->skip_special_tokens());
    if (texts.ok()) response->mutable_texts()->Assign(texts->begin(), texts->end());
    return texts.status();
  };
  return UnaryCall::Start(parts_.door->Open(methods::kDetokenize, context), parts_.encoders, work);
}

}  // namespace nibble
