// Two counters, two rates and a sentence for who is refused.
#include "engine/scheduler/admission.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr double kRateWindow_s = 10;
constexpr absl::Duration kShortestAdvice = absl::Milliseconds(100);
constexpr absl::Duration kLongestAdvice = absl::Minutes(1);
constexpr absl::Duration kUnknownAdvice = absl::Seconds(1);

}  // namespace

absl::Status Admission::CheckRoom(absl::Time now) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return CheckRoomFor(1, now);
}

absl::Status Admission::TryEnter(int64_t tokens, absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status status = CheckRoomFor(tokens, now); !status.ok()) return status;
  ++requests_;
  tokens_ += tokens;
  return absl::OkStatus();
}

absl::Status Admission::CheckRoomFor(int64_t tokens, absl::Time now) const {
  const bool fits = requests_ < limits_.max_requests && tokens <= limits_.max_tokens - tokens_;
  if (requests_ == 0 || fits) return absl::OkStatus();
  return RetryLater(
      "QUEUE_FULL",
      absl::StrCat("queue full: ", requests_, " of ", limits_.max_requests, " requests and ",
                   tokens_, " of ", limits_.max_tokens, " tokens wait, this one has ", tokens),
      RetryAfter(now));
}

void Admission::Start(int64_t tokens, absl::Time now) {
  Withdraw(tokens);
  const std::lock_guard<std::mutex> lock(mutex_);
  Decay(now);
  requests_per_s_ += 1 / kRateWindow_s;
  tokens_per_s_ += static_cast<double>(tokens) / kRateWindow_s;
}

void Admission::Withdraw(int64_t tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  --requests_;
  tokens_ -= tokens;
  Check(requests_ >= 0 && tokens_ >= 0, "who leaves a queue was in it");
}

void Admission::Decay(absl::Time now) {
  const double elapsed_s = absl::ToDoubleSeconds(now - std::min(rated_at_, now));
  const double kept = std::exp(-elapsed_s / kRateWindow_s);
  requests_per_s_ *= kept;
  tokens_per_s_ *= kept;
  rated_at_ = now;
}

absl::Duration Admission::RetryAfter(absl::Time now) const {
  const double elapsed_s = absl::ToDoubleSeconds(now - std::min(rated_at_, now));
  const double kept = std::exp(-elapsed_s / kRateWindow_s);
  if (requests_per_s_ * kept <= 0) return kUnknownAdvice;
  const double seconds =
      std::max(static_cast<double>(requests_) / (requests_per_s_ * kept),
               tokens_per_s_ > 0 ? static_cast<double>(tokens_) / (tokens_per_s_ * kept) : 0.0);
  return std::clamp(absl::Seconds(seconds), kShortestAdvice, kLongestAdvice);
}

int64_t Admission::waiting_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

int64_t Admission::waiting_tokens() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return tokens_;
}

}  // namespace nibble
