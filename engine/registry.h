// The models by name, and who is using them. Knows no requests: a lease says that something does.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/model_description.h"
#include "engine/request.h"

namespace nibble {

class ModelRegistry;
class ServedModel;

// While it lives, its model does. Move-only; thread-safe.
class ModelLease {
 public:
  ModelLease() = default;
  ModelLease(ModelLease&& other) noexcept;
  ModelLease& operator=(ModelLease&& other) noexcept;
  ~ModelLease();

  ServedModel* operator->() const { return served_; }
  ServedModel& operator*() const { return *served_; }
  explicit operator bool() const { return served_ != nullptr; }

 private:
  friend class ModelRegistry;
  ModelLease(ModelRegistry* registry, ServedModel* served) : registry_(registry), served_(served) {}

  ModelRegistry* registry_ = nullptr;
  ServedModel* served_ = nullptr;
};

// Thread-safe. A name is loading, then ready, then unloading, then free again.
// 1. Leases are given of ready models only.
// 2. A model leaves the registry only when it has no lease.
class ModelRegistry {
 public:
  ModelRegistry();
  ~ModelRegistry();

  // Takes the name of a model that is about to be loaded.
  // Errors: ALREADY_EXISTS; UNAVAILABLE once closed.
  absl::Status BeginLoad(const ModelDescription& description);
  void FinishLoad(const ModelDescription& description, std::unique_ptr<ServedModel> served);
  void AbandonLoad(const std::string& name);

  // Errors: NOT_FOUND; UNAVAILABLE unless it is ready.
  absl::Status BeginUnload(const std::string& name);
  // True when the model had no lease before `timeout` was over.
  bool WaitUnused(const std::string& name, absl::Duration timeout) const;
  std::unique_ptr<ServedModel> FinishUnload(const std::string& name);
  // The model of this name in any state but loading; null if there is none.
  ServedModel* Peek(const std::string& name) const;

  // The model of this name, or the only one that can do `op` when it is empty.
  // Errors: NOT_FOUND; INVALID_ARGUMENT (no name, several models); UNAVAILABLE (loading, unloading,
  // closed).
  absl::StatusOr<ModelLease> Lease(const std::string& name, Operation op);
  absl::StatusOr<ModelLease> Lease(const std::string& name);
  // Runs `enter` unless the model began to unload, or the registry to close, after the lease was
  // given; whoever ends all work later finds what entered. Errors: UNAVAILABLE.
  absl::Status EnterWhileOpen(const ModelLease& lease, const std::function<void()>& enter);

  // No leases and loads from now on.
  void Close();
  bool closed() const;
  bool WaitAllUnused(absl::Duration timeout) const;

  std::vector<ModelDescription> List() const;  // by name
  absl::StatusOr<ModelDescription> Get(const std::string& name) const;
  void ForEach(const std::function<void(const std::string&, const ServedModel&)>& visit) const;

 private:
  friend class ModelLease;
  struct Entry {
    ModelDescription description;
    std::unique_ptr<ServedModel> served;  // null while loading
    int64_t leases = 0;
  };

  void Return(const ServedModel* served);
  Entry& EntryOf(const ServedModel* served) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Entry*> OnlyOneThatCan(Operation op) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<ModelLease> LeaseOf(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // name null: of all models.
  bool WaitFor(absl::Duration timeout, const std::string* name) const;
  bool Unused(const std::string* name) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  mutable std::mutex mutex_;
  mutable std::condition_variable returned_;  // a lease
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace nibble
