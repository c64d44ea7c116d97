// Two vectors that change hands under a lock.
#include "engine/inbox.h"

namespace nibble {

void Inbox::Send(std::unique_ptr<Job> job, absl::Time now) {
  const absl::MutexLock lock(&mutex_);
  if (!busy_) progress_at_ = now;
  busy_ = true;
  mail_.jobs.push_back(std::move(job));
}

void Inbox::Send(Cancellation cancellation, absl::Time now) {
  const absl::MutexLock lock(&mutex_);
  if (!busy_) progress_at_ = now;
  busy_ = true;
  mail_.cancellations.push_back(std::move(cancellation));
}

void Inbox::Stop() {
  const absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

void Inbox::Take(absl::Time now, bool busy, Mail* mail) {
  mail->jobs.clear();
  mail->cancellations.clear();
  const absl::MutexLock lock(&mutex_);
  std::swap(*mail, mail_);
  busy_ = busy || !mail->empty();
  progress_at_ = now;
}

bool Inbox::Wait() {
  const absl::MutexLock lock(&mutex_);
  const auto has_mail_or_stopped = [this] {
    mutex_.AssertReaderHeld();
    return stopped_ || !mail_.empty();
  };
  mutex_.Await(absl::Condition(&has_mail_or_stopped));
  return !mail_.empty();
}

absl::Duration Inbox::StalledFor(absl::Time now) const {
  const absl::MutexLock lock(&mutex_);
  return busy_ ? std::max(now - progress_at_, absl::ZeroDuration()) : absl::ZeroDuration();
}

}  // namespace nibble
