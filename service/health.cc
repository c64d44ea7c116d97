// See the header.
#include "service/health.h"

namespace nibble {
namespace {

constexpr char kInference[] = "nibble.v1.Inference";

std::string NameOf(const std::string& model) { return std::string(kInference) + "/" + model; }

}  // namespace

void Health::Attach(grpc::HealthCheckServiceInterface* service) {
  absl::MutexLock lock(&mutex_);
  services_.push_back(service);
  PublishAll();
}

void Health::SetReady(bool ready) { Set(kInference, ready); }

void Health::SetModel(const std::string& model, bool serving) { Set(NameOf(model), serving); }

void Health::SetStalled(bool stalled) {
  absl::MutexLock lock(&mutex_);
  stalled_ = stalled;
  PublishAll();
}

void Health::BeginDrain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  PublishAll();
}

bool Health::Serves(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  const auto found = wanted_.find(NameOf(model));
  return found != wanted_.end() && found->second;
}

void Health::Set(const std::string& name, bool serving) {
  absl::MutexLock lock(&mutex_);
  wanted_[name] = serving;
  Publish(name, serving);
}

void Health::Publish(const std::string& name, bool serving) {
  for (grpc::HealthCheckServiceInterface* service : services_) {
    service->SetServingStatus(name, serving && !stalled_ && !draining_);
  }
}

void Health::PublishAll() {
  for (const auto& [name, serving] : wanted_) Publish(name, serving);
}

}  // namespace nibble
