// Pumps one stream from its queue to gRPC; see the header for the rules.
#include "service/generate_reactor.h"

#include <utility>

#include "engine/check.h"
#include "engine/status.h"
#include "service/convert.h"

namespace nibble {
namespace {

absl::Status SlowReader() {
  return Error(absl::StatusCode::kAborted, "SLOW_READER",
               "the client did not read its stream in time");
}

// False for a piece of which the client asked for nothing: ids without text, as a model without a
// tokenizer gives them.
bool TellsAnything(const v1::GenerateResponse& piece) {
  return !piece.text().empty() || piece.token_ids_size() > 0 || piece.logprobs_size() > 0 ||
         piece.prompt_logprobs_size() > 0 || piece.finish_reason() != v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

GenerateReactor* GenerateReactor::Start(const ServiceParts& parts, std::unique_ptr<Call> call,
                                        const v1::GenerateRequest& request) {
  absl::Status status = call->admission();
  call->record()->model = request.model();
  std::shared_ptr<GenerateReactor> reactor(
      new GenerateReactor(parts, std::move(call), request.output().token_ids()));
  reactor->self_ = reactor;
  reactor->queue_ = std::make_shared<TokenQueue>(
      parts.options->max_stream_bytes, [weak = reactor->weak_from_this()] {
        if (const std::shared_ptr<GenerateReactor> stream = weak.lock()) stream->SchedulePump();
      });
  parts.stall_watch->Add(reactor);
  if (status.ok() && !parts.encoders->TryPost([reactor, &request] { reactor->Submit(request); })) {
    status = ServerBusy();
  }
  if (!status.ok()) reactor->queue_->OnDone(status);
  return reactor.get();
}

GenerateReactor::GenerateReactor(const ServiceParts& parts, std::unique_ptr<Call> call,
                                 bool token_ids)
    : parts_(parts),
      context_(call->context()),
      token_ids_(token_ids),
      cancel_(parts.engine),
      call_(std::move(call)) {}

void GenerateReactor::Submit(const v1::GenerateRequest& proto) {
  if (const std::optional<absl::Status> asked = cancel_.asked()) return queue_->OnDone(*asked);
  absl::StatusOr<GenerateRequest> request = FromProto(proto);
  if (!request.ok()) return queue_->OnDone(request.status());
  request->context = context_;
  const absl::StatusOr<RequestId> id = parts_.engine->Submit(*std::move(request), queue_);
  if (!id.ok()) return queue_->OnDone(id.status());
  cancel_.SetRequest(*id);
}

void GenerateReactor::SchedulePump() {
  if (pump_scheduled_.exchange(true)) return;
  const bool posted = parts_.writers->TryPost([stream = shared_from_this()] {
    stream->pump_scheduled_ = false;
    stream->Pump();
  });
  Check(posted, "the writers' queue has room for every stream");
}

void GenerateReactor::Pump() {
  if (queue_->overflowed()) cancel_.Ask(SlowReader());
  bool write = false;
  std::optional<grpc::Status> finish;
  {
    absl::MutexLock lock(&mutex_);
    if (busy_) return;
    while (!write) {
      std::optional<GenerateChunk> chunk = queue_->Pop();
      if (!chunk.has_value()) break;
      Count(*chunk);
      ToProto(*std::move(chunk), token_ids_, &response_);
      write = TellsAnything(response_);
    }
    if (const std::optional<absl::Status> end = queue_->End()) finish = call_->Close(*end);
    if (!write && !finish.has_value()) return;
    busy_ = true;
    busy_since_ = absl::Now();
  }
  if (write && finish.has_value()) {
    StartWriteAndFinish(&response_, grpc::WriteOptions(), *std::move(finish));
  } else if (write) {
    StartWrite(&response_);
  } else {
    Finish(*std::move(finish));
  }
}

void GenerateReactor::Count(const GenerateChunk& chunk) {
  if (chunk.finish_reason == FinishReason::kNone) return;
  RequestRecord* record = call_->record();
  record->model = chunk.model;
  record->prompt_tokens += chunk.usage.prompt_tokens;
  record->cached_prompt_tokens += chunk.usage.cached_prompt_tokens;
  record->completion_tokens += chunk.usage.completion_tokens;
  if (chunk.index == 0) {
    record->queue_ms = chunk.timing.queue_ms;
    record->time_to_first_token_ms = chunk.timing.time_to_first_token_ms;
  }
}

void GenerateReactor::CheckStall(absl::Time now, absl::Duration limit) {
  absl::MutexLock lock(&mutex_);
  if (!busy_ || call_ == nullptr || now - busy_since_ < limit) return;
  queue_->Close();
  cancel_.Ask(SlowReader());
  if (now - busy_since_ >= 2 * limit) call_->grpc_context()->TryCancel();
}

void GenerateReactor::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    busy_ = false;
    if (!ok) cancel_.Ask(call_->Cancellation());
  }
  if (!ok) queue_->Close();
  Pump();
}

void GenerateReactor::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancel_.Ask(call_->Cancellation());
  }
  queue_->Close();
}

void GenerateReactor::OnDone() {
  const std::shared_ptr<GenerateReactor> self = std::move(self_);
  absl::MutexLock lock(&mutex_);
  call_.reset();
}

}  // namespace nibble
