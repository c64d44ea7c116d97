// The running server: engine, gRPC, accept loop, health, in the one order in which they start and
// the one order in which they stop. Knows no command line and no signal.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "service/server_options.h"

namespace nibble {

// The life of a server:
//   1. Start: checks every option, binds, creates the engine, answers RPCs (health: "" is SERVING,
//      "nibble.v1.Inference" not yet).
//   2. LoadModels: loads options.models; then "nibble.v1.Inference" is SERVING.
//   3. Wait: returns when a drain was asked for and is done.
// BeginDrain may come at any time after Start, from any thread but a signal handler.
class Server {
 public:
  // Errors: INVALID_ARGUMENT (an option, by its flag's name), UNAVAILABLE (the port is in use),
  // NOT_FOUND, PERMISSION_DENIED, DATA_LOSS (a file), and the engine's.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options);
  // Cancels what still runs.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Errors: the first model's that fails; CANCELLED when a drain began meanwhile.
  absl::Status LoadModels();

  // NOT_SERVING at once, new requests UNAVAILABLE; what runs is finished until `timeout` and
  // cancelled after it. Never waits; a second call changes nothing.
  void BeginDrain(absl::Duration timeout);
  void BeginDrain();  // with options.drain_timeout
  // Waits for BeginDrain, then for its end; stops everything.
  // Errors: DEADLINE_EXCEEDED when requests could not even be cancelled (a hung device): the caller
  // should leave the process without destroying the server; INTERNAL when the device was lost,
  // which begins a drain by itself.
  absl::Status Wait();

  int port() const;             // bound
  std::string address() const;  // "127.0.0.1:50051", with the bound port
  int health_port() const;      // 0 without options.health_listen
  Engine& engine();
  const ServerOptions& options() const;
  bool draining() const;

 private:
  class Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace nibble
