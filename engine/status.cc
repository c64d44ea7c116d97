// Writes and reads the payloads that carry an error's reason, field and retry advice. Their type
// URLs are ours alone; only the door turns them into google.rpc messages.
#include "engine/status.h"

#include "absl/strings/cord.h"

namespace nibble {
namespace {

constexpr char kReasonUrl[] = "nibble/reason";
constexpr char kFieldUrl[] = "nibble/field";
constexpr char kRetryAfterUrl[] = "nibble/retry-after";

void SetPayload(absl::Status* status, const char* url, std::string_view value) {
  if (!value.empty()) status->SetPayload(url, absl::Cord(Str(value)));
}

std::string PayloadOf(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status Error(absl::StatusCode code, std::string_view reason, std::string_view message,
                   std::string_view field) {
  absl::Status status(code, absl::string_view(message.data(), message.size()));
  SetPayload(&status, kReasonUrl, reason);
  SetPayload(&status, kFieldUrl, field);
  return status;
}

absl::Status RetryLater(std::string_view reason, std::string_view message, absl::Duration after) {
  absl::Status status = Error(absl::StatusCode::kResourceExhausted, reason, message);
  SetPayload(&status, kRetryAfterUrl, absl::FormatDuration(after));
  return status;
}

std::string ReasonOf(const absl::Status& status) { return PayloadOf(status, kReasonUrl); }

std::string FieldOf(const absl::Status& status) { return PayloadOf(status, kFieldUrl); }

std::optional<absl::Duration> RetryAfterOf(const absl::Status& status) {
  absl::Duration after;
  if (!absl::ParseDuration(PayloadOf(status, kRetryAfterUrl), &after)) return std::nullopt;
  return after;
}

}  // namespace nibble
