// What the server tells whoever counts and logs: one record per RPC, one event per change of state.
// Never a prompt, an answer, an address or a directory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace nibble {

// One finished RPC of ours (health and reflection are gRPC's own and are not recorded).
struct RequestRecord {
  const char* method = "";  // "/nibble.v1.Inference/Generate"; static storage
  const char* op = "";      // "generate", "embed", "tokenize", "load_model", …: a closed set
  std::string model;        // a loaded model's name, else ""
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string reason;   // of google.rpc.ErrorInfo; "" when OK
  std::string message;  // the status message as the client got it; "" when OK
  std::string request_id;
  std::string tenant;       // "" when none was given
  std::string traceparent;  // "" when none was given
  absl::Time received;
  absl::Duration duration;  // from the first byte seen to the end of the stream
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double queue_ms = 0;
  double time_to_first_token_ms = 0;
};

// One change of the server's state.
struct ServerEvent {
  enum class Kind : uint8_t {
    kListening,      // message: the bound address
    kModelLoaded,    // model, duration
    kLoadFailed,     // model, status, duration
    kModelUnloaded,  // model, duration
    kReady,          // every model of the command line is loaded
    kDraining,       // message: the timeout
    kStalled,        // the engine thread has not finished a step for the watchdog's timeout
    kRecovered,      // it has again
    kDeviceLost,     // message: the device; nothing can be computed any more, a drain follows
    kAcceptFailed,   // the listener could not accept (out of file descriptors …) and backs off
    kStopped,        // nothing runs any more
  };
  Kind kind;
  std::string model = {};
  std::string message = {};
  absl::Status status = absl::OkStatus();
  absl::Duration duration = absl::ZeroDuration();
};
const char* Name(ServerEvent::Kind kind);  // "listening", "model_loaded", …

// Both are called from several threads at once, must not block, and may be empty.
struct Observer {
  std::function<void(const RequestRecord&)> on_request;
  std::function<void(const ServerEvent&)> on_event;
};

// "OK", "INVALID_ARGUMENT" …: the `code` label.
const char* CodeName(absl::StatusCode code);

}  // namespace nibble
