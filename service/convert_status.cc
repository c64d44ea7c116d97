// absl::Status as gRPC and google.rpc say it.
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "service/convert.h"
#include "service/observer.h"

namespace nibble {
namespace {

// A status travels in HTTP/2 headers, of which clients take 8 KiB by default, and the message up to
// three times in it.
constexpr size_t kMaxMessageBytes = 1024;

// Length of the UTF-8 character that begins at text[at], or 0 when none does.
size_t CharacterBytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  const size_t length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if ((first >= 0x80 && first < 0xC2) || first > 0xF4 || at + length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = length > 1 ? byte(at + 1) : 0;
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool surrogate = first == 0xED && second >= 0xA0;
  const bool too_high = first == 0xF4 && second >= 0x90;
  return overlong || surrogate || too_high ? 0 : length;
}

// Cut between characters, invalid bytes replaced.
std::string ForWire(std::string_view text) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t length = CharacterBytes(text, at);
    if (result.size() + std::max<size_t>(length, 1) > kMaxMessageBytes - 3) return result + "…";
    result += length == 0 ? "?" : std::string(text.substr(at, length));
    at += std::max<size_t>(length, 1);
  }
  return result;
}

google::rpc::Status Details(const absl::Status& status, const std::string& message,
                            const std::string& reason, const std::string& request_id) {
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("nibble");
  if (!request_id.empty()) (*info.mutable_metadata())["request_id"] = request_id;
  details.add_details()->PackFrom(info);
  if (const std::string field = FieldOf(status); !field.empty()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(ForWire(field));
    violation->set_description(message);
    details.add_details()->PackFrom(bad);
  }
  if (const std::optional<absl::Duration> after = RetryAfterOf(status)) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() =
        google::protobuf::util::TimeUtil::MillisecondsToDuration(absl::ToInt64Milliseconds(*after));
    details.add_details()->PackFrom(retry);
  }
  return details;
}

}  // namespace

WireStatus ToWire(const absl::Status& status, const std::string& request_id) {
  WireStatus wire;
  if (status.ok()) return wire;
  wire.reason = ReasonOf(status);
  if (wire.reason.empty()) wire.reason = CodeName(status.code());
  const std::string message = ForWire({status.message().data(), status.message().size()});
  wire.status = grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                             Details(status, message, wire.reason, request_id).SerializeAsString());
  if (const std::optional<absl::Duration> after = RetryAfterOf(status)) {
    wire.trailers.emplace_back("grpc-retry-pushback-ms",
                               absl::StrCat(absl::ToInt64Milliseconds(*after)));
  }
  return wire;
}

}  // namespace nibble
