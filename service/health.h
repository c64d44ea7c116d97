// What grpc.health.v1 says: the names, and which of them serve. The protocol itself is gRPC's own
// health service.
#pragma once

#include <grpcpp/health_check_service_interface.h>

#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace nibble {

// Names: "" (the process), "nibble.v1.Inference" (ready to serve), "nibble.v1.Inference/<model>".
// A name serves when it was set so, the engine is not stalled, and no drain has begun.
// Thread-safe.
class Health {
 public:
  // Adds a listener's health service and tells it everything known so far. It must outlive the
  // last call of any other method but Serves.
  void Attach(grpc::HealthCheckServiceInterface* service);

  void SetReady(bool ready);  // "nibble.v1.Inference"
  void SetModel(const std::string& model, bool serving);
  void SetStalled(bool stalled);  // every name
  void BeginDrain();              // every name, for ever

  // Whether the model was set so: loaded, and not being unloaded.
  bool Serves(const std::string& model) const;

 private:
  void Set(const std::string& name, bool serving);
  void Publish(const std::string& name, bool serving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PublishAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::vector<grpc::HealthCheckServiceInterface*> services_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, bool> wanted_ ABSL_GUARDED_BY(mutex_) = {{"", true},
                                                                 {"nibble.v1.Inference", false}};
  bool stalled_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace nibble
