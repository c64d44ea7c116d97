// States of names and counts of leases under one lock.
#include "engine/registry.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/served_model.h"
#include "engine/status.h"

namespace nibble {
namespace {

// Longer than this cannot be added to a clock's time.
constexpr absl::Duration kForever = absl::Hours(24 * 365);

absl::Status NotFound(const std::string& name) {
  return Error(absl::StatusCode::kNotFound, "MODEL_NOT_FOUND",
               absl::StrCat("no model is named \"", name, "\""), "model");
}

absl::Status NotReady(const ModelDescription& model) {
  const bool loading = model.state == ModelState::kLoading;
  return Error(
      absl::StatusCode::kUnavailable, loading ? "MODEL_LOADING" : "MODEL_UNLOADING",
      absl::StrCat("model \"", model.name, "\" is ", loading ? "still loading" : "being unloaded"),
      "model");
}

absl::Status Closed() {
  return Error(absl::StatusCode::kUnavailable, "DRAINING", "the server is shutting down");
}

bool Can(const ModelDescription& model, Operation op) {
  return op == Operation::kGenerate ? model.can_generate : model.can_embed;
}

}  // namespace

ModelLease::ModelLease(ModelLease&& other) noexcept
    : registry_(other.registry_), served_(std::exchange(other.served_, nullptr)) {}

ModelLease& ModelLease::operator=(ModelLease&& other) noexcept {
  std::swap(registry_, other.registry_);
  std::swap(served_, other.served_);
  return *this;
}

ModelLease::~ModelLease() {
  if (served_ != nullptr) registry_->Return(served_);
}

ModelRegistry::ModelRegistry() = default;
ModelRegistry::~ModelRegistry() = default;

absl::Status ModelRegistry::BeginLoad(const ModelDescription& description) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return Closed();
  Entry entry{.description = description};
  entry.description.state = ModelState::kLoading;
  if (!entries_.emplace(description.name, std::move(entry)).second) {
    return Error(absl::StatusCode::kAlreadyExists, "MODEL_EXISTS",
                 absl::StrCat("a model named \"", description.name, "\" is loaded or loading"),
                 "name");
  }
  return absl::OkStatus();
}

void ModelRegistry::FinishLoad(const ModelDescription& description,
                               std::unique_ptr<ServedModel> served) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Entry& entry = entries_.at(description.name);
  entry.description = description;
  entry.description.state = ModelState::kReady;
  entry.served = std::move(served);
}

void ModelRegistry::AbandonLoad(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  entries_.erase(name);
}

absl::Status ModelRegistry::BeginUnload(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return NotFound(name);
  if (it->second.description.state != ModelState::kReady) return NotReady(it->second.description);
  it->second.description.state = ModelState::kUnloading;
  return absl::OkStatus();
}

bool ModelRegistry::WaitUnused(const std::string& name, absl::Duration timeout) const {
  return WaitFor(timeout, &name);
}

bool ModelRegistry::WaitAllUnused(absl::Duration timeout) const {
  return WaitFor(timeout, nullptr);
}

bool ModelRegistry::WaitFor(absl::Duration timeout, const std::string* name) const {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto unused = [&] { return Unused(name); };
  if (timeout >= kForever) {
    returned_.wait(lock, unused);
    return true;
  }
  return returned_.wait_for(lock, absl::ToChronoNanoseconds(timeout), unused);
}

bool ModelRegistry::Unused(const std::string* name) const {
  for (const auto& [key, entry] : entries_) {
    if ((name == nullptr || key == *name) && entry.leases > 0) return false;
  }
  return true;
}

std::unique_ptr<ServedModel> ModelRegistry::FinishUnload(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = entries_.find(name);
  Check(it != entries_.end() && it->second.leases == 0, "a model is unloaded when nothing uses it");
  std::unique_ptr<ServedModel> served = std::move(it->second.served);
  entries_.erase(it);
  return served;
}

ServedModel* ModelRegistry::Peek(const std::string& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : it->second.served.get();
}

absl::StatusOr<ModelRegistry::Entry*> ModelRegistry::OnlyOneThatCan(Operation op) {
  Entry* only = nullptr;
  const ModelDescription* loading = nullptr;
  for (auto& [name, entry] : entries_) {
    if (entry.description.state == ModelState::kLoading) loading = &entry.description;
    if (entry.served == nullptr || !Can(entry.description, op)) continue;
    if (only != nullptr) {
      return Error(absl::StatusCode::kInvalidArgument, "MODEL_AMBIGUOUS",
                   absl::StrCat("several models can ", Name(op), ": \"", only->description.name,
                                "\", \"", name, "\"; name one"),
                   "model");
    }
    only = &entry;
  }
  if (only != nullptr) return only;
  if (loading != nullptr) return NotReady(*loading);
  return Error(absl::StatusCode::kNotFound, "MODEL_NOT_FOUND",
               absl::StrCat("no loaded model can ", Name(op)), "model");
}

absl::StatusOr<ModelLease> ModelRegistry::LeaseOf(Entry* entry) {
  if (entry->description.state != ModelState::kReady) return NotReady(entry->description);
  ++entry->leases;
  return ModelLease(this, entry->served.get());
}

absl::StatusOr<ModelLease> ModelRegistry::Lease(const std::string& name, Operation op) {
  if (!name.empty()) return Lease(name);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return Closed();
  const absl::StatusOr<Entry*> entry = OnlyOneThatCan(op);
  if (!entry.ok()) return entry.status();
  return LeaseOf(*entry);
}

absl::StatusOr<ModelLease> ModelRegistry::Lease(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return Closed();
  const auto it = entries_.find(name);
  if (it == entries_.end()) return NotFound(name);
  return LeaseOf(&it->second);
}

ModelRegistry::Entry& ModelRegistry::EntryOf(const ServedModel* served) {
  const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const auto& named) {
    return named.second.served.get() == served;
  });
  Check(it != entries_.end(), "a leased model is registered");
  return it->second;
}

absl::Status ModelRegistry::EnterWhileOpen(const ModelLease& lease,
                                           const std::function<void()>& enter) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return Closed();
  const ModelDescription& model = EntryOf(lease.served_).description;
  if (model.state != ModelState::kReady) return NotReady(model);
  enter();
  return absl::OkStatus();
}

void ModelRegistry::Return(const ServedModel* served) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (--EntryOf(served).leases == 0) returned_.notify_all();
}

void ModelRegistry::Close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
}

bool ModelRegistry::closed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return closed_;
}

std::vector<ModelDescription> ModelRegistry::List() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<ModelDescription> models;
  for (const auto& [name, entry] : entries_) models.push_back(entry.description);
  return models;
}

absl::StatusOr<ModelDescription> ModelRegistry::Get(const std::string& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return NotFound(name);
  return it->second.description;
}

void ModelRegistry::ForEach(
    const std::function<void(const std::string&, const ServedModel&)>& visit) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    if (entry.served != nullptr) visit(name, *entry.served);
  }
}

}  // namespace nibble
