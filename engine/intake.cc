// Three doors in a row: may it come in, is it well formed, is there room.
#include "engine/intake.h"

#include <utility>

#include "engine/prepare.h"
#include "engine/served_model.h"
#include "engine/status.h"

namespace nibble {

absl::StatusOr<RequestId> Intake::Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) {
  absl::StatusOr<ModelLease> lease = Admit(request.model, Operation::kGenerate, &request.context);
  if (!lease.ok()) return lease.status();
  absl::StatusOr<std::unique_ptr<GenerateJob>> job =
      PrepareGenerate(*std::move(lease), caps_, request);
  if (!job.ok()) return job.status();
  return Enqueue(*std::move(job), std::move(sink));
}

absl::StatusOr<RequestId> Intake::Submit(EmbedRequest request, std::shared_ptr<TokenSink> sink) {
  absl::StatusOr<ModelLease> lease = Admit(request.model, Operation::kEmbed, &request.context);
  if (!lease.ok()) return lease.status();
  absl::StatusOr<std::unique_ptr<EmbedJob>> job = PrepareEmbed(*std::move(lease), caps_, request);
  if (!job.ok()) return job.status();
  return Enqueue(*std::move(job), std::move(sink));
}

// Refuses what would be encoded in vain: too late, no such model, no room.
absl::StatusOr<ModelLease> Intake::Admit(const std::string& model, Operation op,
                                         RequestContext* context) {
  const absl::Time now = clock_();
  if (context->received == absl::InfinitePast()) context->received = now;
  if (context->deadline <= now) {
    return Error(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                 "the deadline had passed when the request arrived");
  }
  absl::StatusOr<ModelLease> lease = registry_->Lease(model, op);
  if (!lease.ok()) return lease;
  if (absl::Status status = (*lease)->admission().CheckRoom(now); !status.ok()) return status;
  return lease;
}

absl::StatusOr<RequestId> Intake::Enqueue(std::unique_ptr<Job> job,
                                          std::shared_ptr<TokenSink> sink) {
  const RequestId id = ++last_id_;
  job->id = id;
  job->sink = std::move(sink);
  ServedModel& model = *job->lease;
  const int64_t tokens = job->queued_tokens;
  const absl::Time now = clock_();
  if (absl::Status status = model.admission().TryEnter(tokens, now); !status.ok()) return status;
  const absl::Status entered =
      registry_->EnterWhileOpen(job->lease, [&] { inbox_->Send(std::move(job), now); });
  if (entered.ok()) return id;
  model.admission().Withdraw(tokens);
  return entered;
}

}  // namespace nibble
