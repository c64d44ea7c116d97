// Runs a load and tells of it as long as somebody listens.
#include "service/load_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "service/convert.h"
#include "service/load_model.h"

namespace nibble {

LoadReactor* LoadReactor::Start(const ServiceParts& parts, std::unique_ptr<Call> call,
                                const v1::LoadModelRequest& request) {
  std::shared_ptr<LoadReactor> reactor(new LoadReactor(parts, std::move(call)));
  reactor->self_ = reactor;
  if (const absl::Status status = reactor->Begin(request); !status.ok()) reactor->End(status);
  return reactor.get();
}

LoadReactor::LoadReactor(const ServiceParts& parts, std::unique_ptr<Call> call)
    : parts_(parts), call_(std::move(call)) {}

absl::Status LoadReactor::Begin(const v1::LoadModelRequest& request) {
  {
    absl::MutexLock lock(&mutex_);
    if (!call_->admission().ok()) return call_->admission();
    call_->record()->model = request.name();
  }
  absl::StatusOr<LoadRequest> load =
      MakeLoadRequest(parts_, request.name(), request.source(), request.options());
  if (!load.ok()) return load.status();
  const bool posted = parts_.loaders->TryPost(
      [stream = shared_from_this(), wanted = *std::move(load)] { stream->Load(wanted); });
  return posted ? absl::OkStatus() : ServerBusy();
}

void LoadReactor::Load(const LoadRequest& request) {
  v1::LoadProgress last;
  const absl::StatusOr<ModelDescription> model =
      LoadAndServe(parts_, request, [&](const LoadProgress& progress) {
        ToProto(progress, &last);
        Offer(last);
      });
  if (!model.ok()) return End(model.status());
  last.set_stage("ready");
  last.set_done_bytes(last.total_bytes());
  ToProto(*model, last.mutable_model());
  Offer(last);
  End(absl::OkStatus());
}

void LoadReactor::Offer(const v1::LoadProgress& progress) {
  {
    absl::MutexLock lock(&mutex_);
    next_ = progress;
  }
  Pump();
}

void LoadReactor::End(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (!end_.has_value()) end_ = status;
  }
  Pump();
}

void LoadReactor::Pump() {
  bool write = false;
  std::optional<grpc::Status> finish;
  {
    absl::MutexLock lock(&mutex_);
    if (busy_) return;
    if (next_.has_value()) {
      writing_ = *std::exchange(next_, std::nullopt);
      write = true;
    } else if (end_.has_value()) {
      finish = call_->Close(*end_);
    } else {
      return;
    }
    busy_ = true;
  }
  if (write) {
    StartWrite(&writing_);
  } else {
    Finish(*std::move(finish));
  }
}

void LoadReactor::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    busy_ = false;
    if (!ok) next_.reset();
    if (!ok && !end_.has_value()) end_ = call_->Cancellation();
  }
  Pump();
}

void LoadReactor::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    next_.reset();
    if (!end_.has_value()) end_ = call_->Cancellation();
  }
  Pump();
}

void LoadReactor::OnDone() {
  const std::shared_ptr<LoadReactor> self = std::move(self_);
  absl::MutexLock lock(&mutex_);
  call_.reset();
}

}  // namespace nibble
