// A Llama of any shape whose weights are random and made on the device: the decoder's operations in
// the decoder's order (engine/model/decoder.cc), through the backend that the engine uses.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/bench/cuda/machine.h"

namespace nibble::bench {

struct LlamaForm {
  int64_t hidden = 4096;
  int64_t layers = 32;
  int64_t heads = 32;
  int64_t kv_heads = 8;
  int64_t head_dim = 128;
  int64_t ffn = 14336;
  int64_t vocab = 128256;
  WeightFormat format = WeightFormat::kNf4;  // of the projections; embedding and head are bf16
  int64_t max_rows = 512;
  int64_t kv_positions = 16384;
};

// Thread rule: one thread. The machine outlives it.
class RandomLlama {
 public:
  RandomLlama(Machine* machine, const LlamaForm& form);

  // What one decoded token reads of weights.
  int64_t weight_bytes() const { return weight_bytes_; }
  int64_t kv_bytes() const { return cache_.Bytes(); }

  // `count` sequences with one new row each at position `position`, or one with `rows` rows that
  // end there; greedy tokens of the last rows. Waits for them.
  absl::Status Decode(int64_t count, int64_t position);
  absl::Status Prefill(int64_t rows);

 private:
  struct Layer {
    Weight q, k, v, o, gate, up, down;
  };
  // Lays out the weights from `data` on; null: only adds their sizes.
  int64_t Place(char* data);
  absl::Status Step(int64_t rows);
  void Attend(size_t layer, const Activations& h);
  void FeedForward(size_t layer, const Activations& h);

  Machine* machine_;
  LlamaForm form_;
  int64_t weight_bytes_ = 0;
  Weight embedding_, head_;
  std::vector<Layer> layers_;
  VectorView norm_;
  KvCache cache_;
  std::vector<float> inv_freq_;
  Activations hidden_, normed_, q_, k_, v_, attended_, gate_, up_, last_, logits_;
  char* scratch_ = nullptr;
  int64_t scratch_bytes_ = 0;
  BackendLimits limits_;

  // Of the step.
  std::vector<int32_t> tokens_, pages_, rows_;
  std::vector<SequenceRows> sequences_;
  std::vector<SamplingPlan> plans_;
  std::vector<SampledToken> sampled_;
};

}  // namespace nibble::bench
