// Two vectors that change hands under a lock.
#include "engine/inbox.h"

namespace nibble {

void Inbox::Send(std::unique_ptr<Job> job, absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!busy_) progress_at_ = now;
  busy_ = true;
  mail_.jobs.push_back(std::move(job));
  arrived_.notify_one();
}

void Inbox::Send(Cancellation cancellation, absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!busy_) progress_at_ = now;
  busy_ = true;
  mail_.cancellations.push_back(std::move(cancellation));
  arrived_.notify_one();
}

void Inbox::Stop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  arrived_.notify_one();
}

void Inbox::Take(absl::Time now, bool busy, Mail* mail) {
  mail->jobs.clear();
  mail->cancellations.clear();
  const std::lock_guard<std::mutex> lock(mutex_);
  std::swap(*mail, mail_);
  busy_ = busy || !mail->empty();
  progress_at_ = now;
}

bool Inbox::Wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  arrived_.wait(lock, [this] { return stopped_ || !mail_.empty(); });
  return !mail_.empty();
}

absl::Duration Inbox::StalledFor(absl::Time now) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return busy_ ? std::max(now - progress_at_, absl::ZeroDuration()) : absl::ZeroDuration();
}

}  // namespace nibble
