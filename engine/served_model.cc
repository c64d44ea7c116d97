// Gauges and the hand-over of counts.
#include "engine/served_model.h"

#include <utility>

namespace nibble {

ServedModel::ServedModel(std::unique_ptr<Model> model, AdmissionLimits limits)
    : model_(std::move(model)),
      admission_(limits),
      pool_(model_->kv_cache().num_pages),
      decode_(this, model_.get(), &pool_, &admission_, &live_),
      encode_(this, model_.get(), &admission_, &live_) {
  Publish();
}

Work& ServedModel::work(Operation op) {
  return op == Operation::kGenerate ? static_cast<Work&>(decode_) : static_cast<Work&>(encode_);
}

void ServedModel::Publish() {
  const auto& pages = pool_;
  live_.kv_usage_ratio = pages.num_pages() == 0 ? 0
                                                : static_cast<double>(pages.num_used()) /
                                                      static_cast<double>(pages.num_pages());
  const GemmCalls& calls = model_->gemm_calls();
  for (size_t i = 0; i < calls.size(); ++i) {
    live_.gemm_calls[Name(static_cast<WeightFormat>(i))] = calls[i];
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  published_ = live_;
}

ModelStats ServedModel::Stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return published_;
}

}  // namespace nibble
