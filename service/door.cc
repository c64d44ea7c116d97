// Opens and closes calls; see the header for what that takes.
#include "service/door.h"

#include <sys/random.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "service/convert.h"

namespace nibble {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxTenantBytes = 64;
constexpr char kRequestId[] = "x-request-id";
constexpr char kTenant[] = "x-tenant";
constexpr char kTraceparent[] = "traceparent";

std::string MetadataOf(const grpc::CallbackServerContext& context, const char* key) {
  const auto found = context.client_metadata().find(key);
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

bool IsName(const std::string& text, size_t max_bytes) {
  return !text.empty() && text.size() <= max_bytes &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) ||
                  std::string_view("._:/+=@-").find(static_cast<char>(c)) != std::string_view::npos;
         });
}

// W3C Trace Context: 2-32-16-2 lower-case hexadecimal digits.
bool IsTraceparent(const std::string& text) {
  if (text.size() != 55) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_dash = i == 2 || i == 35 || i == 52;
    const bool is_digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    if (is_dash ? text[i] != '-' : !is_digit) return false;
  }
  return true;
}

std::string NewRequestId() {
  uint64_t random[2] = {};
  if (getrandom(random, sizeof(random), 0) != sizeof(random)) return "0";
  return absl::StrCat(absl::Hex(random[0], absl::kZeroPad16),
                      absl::Hex(random[1], absl::kZeroPad16));
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const absl::Time deadline = absl::FromChrono(context.deadline());
  // gRPC's "none" is the clock's end, which arithmetic on it would overflow.
  return deadline > absl::Now() + absl::Hours(24 * 365) ? absl::InfiniteFuture() : deadline;
}

}  // namespace

Call::Call(Door* door, const Method& method, grpc::CallbackServerContext* grpc_context)
    : door_(door), grpc_context_(grpc_context) {
  record_.method = method.path;
  record_.op = method.op;
  record_.received = context_.received = absl::Now();
  context_.deadline = DeadlineOf(*grpc_context);
  admission_ = ReadMetadata();
  if (admission_.ok()) {
    admission_ = door_->authorizer_.Check(MetadataOf(*grpc_context, "authorization"), method.role);
  }
  if (admission_.ok() && method.is_work && door_->draining()) {
    admission_ = Error(absl::StatusCode::kUnavailable, "DRAINING", "the server is shutting down");
  }
}

absl::Status Call::ReadMetadata() {
  context_.request_id = MetadataOf(*grpc_context_, kRequestId);
  if (!IsName(context_.request_id, kMaxRequestIdBytes)) context_.request_id = NewRequestId();
  record_.request_id = context_.request_id;
  grpc_context_->AddInitialMetadata(kRequestId, context_.request_id);
  record_.traceparent = MetadataOf(*grpc_context_, kTraceparent);
  if (IsTraceparent(record_.traceparent)) {
    grpc_context_->AddInitialMetadata(kTraceparent, record_.traceparent);
  } else {
    record_.traceparent.clear();
  }
  const std::string tenant = MetadataOf(*grpc_context_, kTenant);
  if (!tenant.empty() && !IsName(tenant, kMaxTenantBytes)) {
    return Error(
        absl::StatusCode::kInvalidArgument, "BAD_METADATA",
        absl::StrCat("x-tenant: 1 to ", kMaxTenantBytes,
                     " letters, digits and ._:/+=@- wanted, got ", tenant.size(), " bytes"),
        kTenant);
  }
  record_.tenant = context_.tenant = tenant;
  return absl::OkStatus();
}

Call::~Call() {
  absl::MutexLock lock(&door_->mutex_);
  --door_->open_calls_;
}

absl::Status Call::Cancellation() const {
  // A client whose deadline passes resets its stream, and often before our clock agrees: gRPC
  // rounds a timeout up by as much as 1 % on its way here.
  const absl::Duration slack =
      absl::Milliseconds(10) + (context_.deadline - context_.received) / 50;
  const bool has_deadline = context_.deadline != absl::InfiniteFuture();
  if (has_deadline && absl::Now() + slack >= context_.deadline) {
    return Error(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED", "deadline exceeded");
  }
  return Error(absl::StatusCode::kCancelled, "CLIENT_CANCELLED", "cancelled by the client");
}

grpc::Status Call::Close(const absl::Status& status) {
  const WireStatus wire = ToWire(status, context_.request_id);
  for (const auto& [key, value] : wire.trailers) grpc_context_->AddTrailingMetadata(key, value);
  record_.code = status.code();
  record_.reason = wire.reason;
  record_.message = wire.status.error_message();
  record_.duration = absl::Now() - record_.received;
  if (!record_.model.empty() && !door_->is_loaded_(record_.model)) record_.model.clear();
  if (door_->observer_.on_request) door_->observer_.on_request(record_);
  return wire.status;
}

Door::Door(Authorizer authorizer, Observer observer,
           std::function<bool(const std::string&)> is_loaded)
    : authorizer_(std::move(authorizer)),
      observer_(std::move(observer)),
      is_loaded_(std::move(is_loaded)) {}

std::unique_ptr<Call> Door::Open(const Method& method, grpc::CallbackServerContext* context) {
  {
    absl::MutexLock lock(&mutex_);
    ++open_calls_;
  }
  return std::unique_ptr<Call>(new Call(this, method, context));
}

void Door::Tell(const ServerEvent& event) const {
  if (observer_.on_event) observer_.on_event(event);
}

int64_t Door::open_calls() const {
  absl::MutexLock lock(&mutex_);
  return open_calls_;
}

bool Door::AwaitIdle(absl::Time deadline) const {
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return open_calls_ == 0; };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(&idle), deadline);
}

}  // namespace nibble
