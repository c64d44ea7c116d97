// Submit, wait, convert, finish; see the header for lifetimes.
#include "service/embed_reactor.h"

#include <utility>

#include "engine/check.h"
#include "service/convert.h"

namespace nibble {

// The engine's end of the call: keeps the vectors, and hands the rest to a writer thread.
class EmbedReactor::Sink : public TokenSink {
 public:
  explicit Sink(std::shared_ptr<EmbedReactor> call) : call_(std::move(call)) {}
  void OnChunk(GenerateChunk) override { Check(false, "an Embed request makes no chunks"); }
  void OnEmbedding(EmbedResult result) override { call_->result_ = std::move(result); }
  void OnDone(const absl::Status& status) override {
    const bool posted = call_->parts_.writers->TryPost(
        [call = std::move(call_), status] { call->Complete(status); });
    Check(posted, "the writers' queue has room for every call");
  }

 private:
  std::shared_ptr<EmbedReactor> call_;
};

EmbedReactor* EmbedReactor::Start(const ServiceParts& parts, std::unique_ptr<Call> call,
                                  const v1::EmbedRequest& request, v1::EmbedResponse* response) {
  call->record()->model = request.model();
  std::shared_ptr<EmbedReactor> reactor(new EmbedReactor(parts, std::move(call), response));
  reactor->self_ = reactor;
  if (const absl::Status status = reactor->Begin(request); !status.ok()) reactor->Complete(status);
  return reactor.get();
}

EmbedReactor::EmbedReactor(const ServiceParts& parts, std::unique_ptr<Call> call,
                           v1::EmbedResponse* response)
    : parts_(parts), call_(std::move(call)), response_(response), cancel_(parts.engine) {}

absl::Status EmbedReactor::Begin(const v1::EmbedRequest& request) {
  if (!call_->admission().ok()) return call_->admission();
  const bool posted =
      parts_.encoders->TryPost([call = shared_from_this(), &request] { call->Submit(request); });
  return posted ? absl::OkStatus() : ServerBusy();
}

void EmbedReactor::Submit(const v1::EmbedRequest& proto) {
  if (const std::optional<absl::Status> asked = cancel_.asked()) return Complete(*asked);
  const absl::StatusOr<v1::Encoding> encoding = EncodingOf(proto);
  if (!encoding.ok()) return Complete(encoding.status());
  encoding_ = *encoding;
  absl::StatusOr<EmbedRequest> request = FromProto(proto);
  if (!request.ok()) return Complete(request.status());
  request->context = call_->context();
  const absl::StatusOr<RequestId> id =
      parts_.engine->Submit(*std::move(request), std::make_shared<Sink>(shared_from_this()));
  if (!id.ok()) return Complete(id.status());
  cancel_.SetRequest(*id);
}

void EmbedReactor::Complete(const absl::Status& status) {
  if (status.ok()) {
    ToProto(*result_, encoding_, response_);
    RequestRecord* record = call_->record();
    record->model = result_->model;
    record->prompt_tokens = result_->usage.prompt_tokens;
    record->queue_ms = result_->timing.queue_ms;
  }
  Finish(call_->Close(status));
}

void EmbedReactor::OnCancel() { cancel_.Ask(call_->Cancellation()); }

void EmbedReactor::OnDone() { std::exchange(self_, nullptr).reset(); }

}  // namespace nibble
