// What every RPC passes on its way in and out: metadata, authorization, drain, and the record of
// how it ended. Knows no request and no model.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/request.h"
#include "service/auth.h"
#include "service/observer.h"

namespace nibble {

// One row of the table of methods (service/methods.h).
struct Method {
  const char* path;  // "/nibble.v1.Inference/Generate"
  const char* op;    // "generate"
  Role role;
  bool is_work;  // refused while draining
};

class Door;

// One RPC between its arrival and its end; owned by its reactor, which dies in OnDone.
class Call {
 public:
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Not OK: close the call with it at once (UNAUTHENTICATED, PERMISSION_DENIED, UNAVAILABLE,
  // INVALID_ARGUMENT).
  const absl::Status& admission() const { return admission_; }
  const RequestContext& context() const { return context_; }
  // Filled on the way: model, tokens, times. One thread at a time.
  RequestRecord* record() { return &record_; }
  grpc::CallbackServerContext* grpc_context() const { return grpc_context_; }
  // What a cancellation by gRPC means now: DEADLINE_EXCEEDED or CANCELLED.
  absl::Status Cancellation() const;

  // Once: adds the trailers, tells the observer, gives what to finish the RPC with.
  grpc::Status Close(const absl::Status& status);

 private:
  friend class Door;
  Call(Door* door, const Method& method, grpc::CallbackServerContext* grpc_context);
  absl::Status ReadMetadata();

  Door* const door_;
  grpc::CallbackServerContext* const grpc_context_;
  RequestContext context_;
  RequestRecord record_;
  absl::Status admission_;
};

// Thread-safe. Outlives its calls.
class Door {
 public:
  // is_loaded: whether a model of this name is loaded, for the record.
  Door(Authorizer authorizer, Observer observer, std::function<bool(const std::string&)> is_loaded);

  std::unique_ptr<Call> Open(const Method& method, grpc::CallbackServerContext* context);
  void Tell(const ServerEvent& event) const;

  void BeginDrain() { draining_ = true; }
  bool draining() const { return draining_; }
  int64_t open_calls() const;
  // True when no call is open.
  bool AwaitIdle(absl::Time deadline) const;

 private:
  friend class Call;
  const Authorizer authorizer_;
  const Observer observer_;
  const std::function<bool(const std::string&)> is_loaded_;
  std::atomic<bool> draining_ = false;
  mutable absl::Mutex mutex_;
  int64_t open_calls_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace nibble
