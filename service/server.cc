// Start order and drain order, each written once.
#include "service/server.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/status.h"
#include "service/control_service.h"
#include "service/grpc_listener.h"
#include "service/inference_service.h"
#include "service/load_model.h"
#include "service/model_service.h"
#include "service/parts.h"
#include "service/tls.h"
#include "service/watchdog.h"

namespace nibble {
namespace {

constexpr absl::Duration kCancelGrace = absl::Seconds(2);           // for what is cancelled to end
constexpr absl::Duration kShutdownGrace = absl::Milliseconds(100);  // for health watchers
constexpr size_t kMaxQueuedLoads = 16;
constexpr int kNumWriters = 2;

absl::Status Invalid(const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_OPTION", message);
}

absl::Status CheckRanges(const ServerOptions& options) {
  if (options.encode_threads < 1 || options.load_threads < 1 || options.max_queued_calls < 1) {
    return Invalid("a server needs at least one thread and one place of each kind");
  }
  if (options.max_receive_message_bytes < 1 || options.max_metadata_bytes < 1 ||
      options.max_connections < 1 || options.max_concurrent_streams < 1 ||
      options.max_stream_bytes < 1) {
    return Invalid("every limit of the wire is at least 1");
  }
  if (options.send_stall_timeout <= absl::ZeroDuration() ||
      options.watchdog_timeout <= absl::ZeroDuration() ||
      options.drain_timeout < absl::ZeroDuration()) {
    return Invalid(
        "--send-stall-timeout and the watchdog's are over zero, --drain-timeout not below");
  }
  return absl::OkStatus();
}

// What may be spoken beyond this machine, and how.
absl::Status CheckExposure(const ServerOptions& options, const Listener& listener,
                           const Authorizer& authorizer) {
  const bool tls = !options.tls.cert.empty();
  if (listener.loopback || tls) return absl::OkStatus();
  if (!options.insecure) {
    return Invalid(absl::StrCat("--listen ", listener.address,
                                " is reachable from other machines and has no TLS: give --tls-cert "
                                "and --tls-key, or --insecure if something in front encrypts"));
  }
  if (authorizer.enabled()) {
    return Invalid(
        "--auth-token-file needs TLS or a loopback address: tokens would travel in clear");
  }
  return absl::OkStatus();
}

// How often the watchdog looks: often enough for both limits, seldom enough to cost nothing.
absl::Duration PeriodFor(const ServerOptions& options) {
  return std::clamp(std::min(options.send_stall_timeout, options.watchdog_timeout) / 4,
                    absl::Milliseconds(10), absl::Seconds(1));
}

}  // namespace

// Everything a server owns. Members die in reverse order: listeners before services, services
// before pools, pools before the engine.
class Server::Parts {
 public:
  explicit Parts(ServerOptions options) : options_(std::move(options)) {}
  ~Parts();

  absl::Status Start();
  absl::Status LoadModels();
  void BeginDrain(absl::Duration timeout);
  absl::Status Wait();

  const ServerOptions& options() const { return options_; }
  const GrpcListener& listener() const { return *listener_; }
  const GrpcListener* health_listener() const { return health_listener_.get(); }
  Engine& engine() { return *engine_; }
  bool draining() const { return door_ != nullptr && door_->draining(); }

 private:
  absl::Status ReadFiles();
  absl::Status Bind();
  void MakeParts();
  absl::Status Listen();
  void StartWatchdog();
  // The engine's device is gone: says so, serves nothing any more, ends what runs.
  void OnDeviceLost();
  void Stop();

  const ServerOptions options_;
  Authorizer authorizer_;
  ModelRoot model_root_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::optional<Listener> socket_;  // until Listen takes them
  std::optional<Listener> health_socket_;
  std::unique_ptr<Engine> engine_;
  Health health_;
  std::unique_ptr<Door> door_;
  std::unique_ptr<StallWatch> stall_watch_;
  ServiceParts parts_;
  std::unique_ptr<Workers> writers_;
  std::unique_ptr<Workers> encoders_;
  std::unique_ptr<Workers> loaders_;
  InferenceService inference_{parts_};
  ModelService models_{parts_};
  ControlService control_{parts_};
  std::unique_ptr<GrpcListener> listener_;
  std::unique_ptr<GrpcListener> health_listener_;
  std::unique_ptr<Watchdog> watchdog_;

  absl::Mutex mutex_;
  bool drain_begun_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Time> drain_deadline_ ABSL_GUARDED_BY(mutex_);
  bool device_lost_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::Status Server::Parts::Start() {
  if (absl::Status status = CheckRanges(options_); !status.ok()) return status;
  if (absl::Status status = ReadFiles(); !status.ok()) return status;
  if (absl::Status status = Bind(); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Create(options_.engine);
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  MakeParts();
  if (absl::Status status = Listen(); !status.ok()) return status;
  StartWatchdog();
  door_->Tell({ServerEvent::Kind::kListening, "", listener_->listener().address});
  return absl::OkStatus();
}

absl::Status Server::Parts::ReadFiles() {
  absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> credentials =
      MakeCredentials(options_.tls);
  if (!credentials.ok()) return credentials.status();
  credentials_ = *std::move(credentials);
  if (!options_.auth_token_file.empty()) {
    absl::StatusOr<Authorizer> authorizer = Authorizer::FromFile(options_.auth_token_file);
    if (!authorizer.ok()) return authorizer.status();
    authorizer_ = *std::move(authorizer);
  }
  if (!options_.model_root.empty()) {
    absl::StatusOr<ModelRoot> root = ModelRoot::Open(options_.model_root);
    if (!root.ok()) return root.status();
    model_root_ = *std::move(root);
  }
  return absl::OkStatus();
}

absl::Status Server::Parts::Bind() {
  absl::StatusOr<Listener> socket = nibble::Listen("--listen", options_.listen);
  if (!socket.ok()) return socket.status();
  if (absl::Status status = CheckExposure(options_, *socket, authorizer_); !status.ok()) {
    return status;
  }
  socket_ = *std::move(socket);
  if (options_.health_listen.empty()) return absl::OkStatus();
  absl::StatusOr<Listener> health = nibble::Listen("--health-listen", options_.health_listen);
  if (!health.ok()) return health.status();
  health_socket_ = *std::move(health);
  return absl::OkStatus();
}

void Server::Parts::MakeParts() {
  door_ =
      std::make_unique<Door>(std::move(authorizer_), options_.observer,
                             [this](const std::string& model) { return health_.Serves(model); });
  stall_watch_ = std::make_unique<StallWatch>(options_.send_stall_timeout);
  writers_ = std::make_unique<Workers>("write", kNumWriters, std::numeric_limits<size_t>::max());
  encoders_ = std::make_unique<Workers>("encode", options_.encode_threads,
                                        static_cast<size_t>(options_.max_queued_calls));
  loaders_ = std::make_unique<Workers>("load", options_.load_threads, kMaxQueuedLoads);
  parts_ = {.options = &options_,
            .engine = engine_.get(),
            .door = door_.get(),
            .health = &health_,
            .stall_watch = stall_watch_.get(),
            .model_root = &model_root_,
            .encoders = encoders_.get(),
            .loaders = loaders_.get(),
            .writers = writers_.get(),
            .begin_drain = [this](absl::Duration timeout) { BeginDrain(timeout); },
            .started = absl::Now()};
}

absl::Status Server::Parts::Listen() {
  GrpcListener::Wanted wanted;
  wanted.credentials = credentials_;
  wanted.services = {&inference_, &models_, &control_};
  wanted.reflection = options_.reflection.value_or(socket_->loopback);
  wanted.on_accept_failure = [this](int error) {
    door_->Tell({ServerEvent::Kind::kAcceptFailed, "", std::strerror(error)});
  };
  GrpcListener::Wanted health_wanted;
  health_wanted.credentials = grpc::InsecureServerCredentials();
  health_wanted.on_accept_failure = wanted.on_accept_failure;
  auto listener = GrpcListener::Start(*std::move(socket_), options_, std::move(wanted));
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  health_.Attach(listener_->health());
  if (!health_socket_.has_value()) return absl::OkStatus();
  listener = GrpcListener::Start(*std::move(health_socket_), options_, std::move(health_wanted));
  if (!listener.ok()) return listener.status();
  health_listener_ = *std::move(listener);
  health_.Attach(health_listener_->health());
  return absl::OkStatus();
}

void Server::Parts::StartWatchdog() {
  Watchdog::Hooks hooks;
  hooks.stalled_for = [this] { return engine_->StalledFor(); };
  hooks.on_change = [this](bool stalled) {
    health_.SetStalled(stalled);
    door_->Tell({stalled ? ServerEvent::Kind::kStalled : ServerEvent::Kind::kRecovered});
  };
  hooks.on_tick = [this](absl::Time now) {
    stall_watch_->Check(now);
    if (engine_->DeviceLost()) OnDeviceLost();
  };
  watchdog_ =
      std::make_unique<Watchdog>(options_.watchdog_timeout, PeriodFor(options_), std::move(hooks));
}

void Server::Parts::OnDeviceLost() {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(device_lost_, true)) return;
  }
  door_->Tell({ServerEvent::Kind::kDeviceLost, "", engine_->device()});
  BeginDrain(absl::ZeroDuration());
}

absl::Status Server::Parts::LoadModels() {
  const absl::Time begin = absl::Now();
  for (const LoadRequest& model : options_.models) {
    if (draining()) return absl::CancelledError("the server is shutting down");
    const auto progress = [&](const LoadProgress& step) {
      if (options_.on_load_progress) options_.on_load_progress(model.name, step);
    };
    const absl::Status status = LoadAndServe(parts_, model, progress).status();
    if (!status.ok()) return status;
  }
  health_.SetReady(true);
  door_->Tell({.kind = ServerEvent::Kind::kReady, .duration = absl::Now() - begin});
  return absl::OkStatus();
}

void Server::Parts::BeginDrain(absl::Duration timeout) {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(drain_begun_, true)) return;
    health_.BeginDrain();
    door_->BeginDrain();
  }
  door_->Tell({ServerEvent::Kind::kDraining, "", absl::FormatDuration(timeout)});
  // Only now: Wait() may end the process as soon as it knows.
  absl::MutexLock lock(&mutex_);
  drain_deadline_ = absl::Now() + timeout;
}

absl::Status Server::Parts::Wait() {
  absl::Time deadline;
  {
    absl::MutexLock lock(&mutex_);
    const auto asked = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return drain_deadline_.has_value();
    };
    mutex_.Await(absl::Condition(&asked));
    deadline = *drain_deadline_;
  }
  engine_->Drain(deadline);
  if (!door_->AwaitIdle(std::max(deadline, absl::Now()) + kCancelGrace)) {
    return Error(absl::StatusCode::kDeadlineExceeded, "DRAIN_FAILED",
                 absl::StrCat(door_->open_calls(), " calls could not be ended"));
  }
  Stop();
  absl::MutexLock lock(&mutex_);
  if (!device_lost_) return absl::OkStatus();
  return Error(absl::StatusCode::kInternal, "DEVICE_LOST",
               absl::StrCat(engine_->device(), " was lost; only a new process can use it again"));
}

void Server::Parts::Stop() {
  if (watchdog_ == nullptr) return;
  listener_->Shutdown(absl::Now() + kShutdownGrace);
  if (health_listener_ != nullptr) health_listener_->Shutdown(absl::Now() + kShutdownGrace);
  watchdog_.reset();
  door_->Tell({ServerEvent::Kind::kStopped});
}

Server::Parts::~Parts() {
  if (watchdog_ == nullptr) return;  // stopped, or never started
  BeginDrain(absl::ZeroDuration());
  Wait().IgnoreError();
  Stop();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options) {
  auto parts = std::make_unique<Parts>(std::move(options));
  if (absl::Status status = parts->Start(); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Server::~Server() = default;

absl::Status Server::LoadModels() { return parts_->LoadModels(); }
void Server::BeginDrain(absl::Duration timeout) { parts_->BeginDrain(timeout); }
void Server::BeginDrain() { parts_->BeginDrain(parts_->options().drain_timeout); }
absl::Status Server::Wait() { return parts_->Wait(); }

int Server::port() const { return parts_->listener().listener().port; }
std::string Server::address() const { return parts_->listener().listener().address; }
int Server::health_port() const {
  const GrpcListener* health = parts_->health_listener();
  return health == nullptr ? 0 : health->listener().port;
}
Engine& Server::engine() { return parts_->engine(); }
const ServerOptions& Server::options() const { return parts_->options(); }
bool Server::draining() const { return parts_->draining(); }

}  // namespace nibble
