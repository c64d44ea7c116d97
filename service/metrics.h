// Everything that /metrics shows, made at the moment it is asked for from the engine's counts and
// the door's own. Nothing here is on a token's path. Names and labels are the contract's.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "service/observer.h"

namespace nibble {

// Bytes of this process as the kernel counts them.
struct ProcessMemory {
  int64_t resident = 0;
  int64_t anonymous = 0;
  int64_t file = 0;
};
ProcessMemory ReadProcessMemory();

// Thread-safe.
class Metrics : public prometheus::Collectable {
 public:
  // From when to when there is an engine to ask; it must live until Detach returns.
  void Attach(const Engine* engine);
  void Detach();

  // One RPC ended; a refusal (a code that says "not run") counts by its reason as well.
  void Count(const RequestRecord& record);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  mutable absl::Mutex mutex_;
  const Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // A model's entries go with its unload; "" (unknown models) stays.
  mutable std::map<std::tuple<std::string, std::string, std::string>, int64_t> requests_
      ABSL_GUARDED_BY(mutex_);
  mutable std::map<std::pair<std::string, std::string>, int64_t> rejections_
      ABSL_GUARDED_BY(mutex_);
};

// Plain HTTP on its own port. `address`: "127.0.0.1:9464"; port 0 is chosen by the system.
class MetricsEndpoint {
 public:
  // Errors: UNAVAILABLE when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& address,
                                                                std::shared_ptr<Metrics> metrics);
  int port() const;

 private:
  std::shared_ptr<Metrics> metrics_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace nibble
