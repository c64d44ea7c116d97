// One small layer of a decoder over random 16-bit weights, for any backend: every kind of host
// argument that a step has.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "kernels/half.h"

namespace nibble::cuda {

// One step's work: sequence i computes token tokens[i] at position positions[i].
struct ToyStep {
  std::vector<int32_t> tokens;
  std::vector<int64_t> positions;
  int32_t num_logprobs = -1;
};

struct ToyAnswer {
  std::vector<float> hidden;  // [sequences, kHidden]
  std::vector<SampledToken> sampled;
  absl::Status status;
};

inline bool operator==(const ToyAnswer& a, const ToyAnswer& b) {
  if (a.hidden != b.hidden || a.sampled.size() != b.sampled.size()) return false;
  for (size_t i = 0; i < a.sampled.size(); ++i) {
    const SampledToken &x = a.sampled[i], &y = b.sampled[i];
    if (x.token != y.token || x.logprob != y.logprob || x.top.size() != y.top.size()) return false;
    for (size_t j = 0; j < x.top.size(); ++j) {
      if (x.top[j].token != y.top[j].token || x.top[j].logprob != y.top[j].logprob) return false;
    }
  }
  return true;
}

class ToyDecoder {
 public:
  static constexpr int64_t kHidden = 64, kVocab = 96, kHeads = 4, kHeadDim = 16, kKvHeads = 2;
  static constexpr int64_t kMaxSequences = 64, kPagesEach = 16;

  explicit ToyDecoder(Backend* backend) : backend_(backend) {
    const auto limits = BackendLimits{.max_rows = kMaxSequences,
                                      .max_context = kPagesEach * kPageSlots,
                                      .max_heads = kHeads,
                                      .max_head_dim = kHeadDim,
                                      .max_k = kHidden,
                                      .int8 = false,
                                      .max_vocab = kVocab,
                                      .max_samples = kMaxSequences};
    table_ = Make(kVocab, kHidden, 1);
    q_ = Make(kHeads * kHeadDim, kHidden, 2);
    k_ = Make(kKvHeads * kHeadDim, kHidden, 3);
    v_ = Make(kKvHeads * kHeadDim, kHidden, 4);
    o_ = Make(kHidden, kHeads * kHeadDim, 5);
    norm_ = Take(kHidden * 4);
    const std::vector<float> ones(kHidden, 1.0f);
    EXPECT_TRUE(backend_->CopyToDevice(norm_, ones.data(), kHidden * 4).ok());
    cache_ = {nullptr, DType::kF16, 1, kMaxSequences * kPagesEach, kKvHeads, kHeadDim};
    cache_.data = Take(cache_.Bytes());
    for (Activations* rows : {&h_, &x_, &query_, &key_, &value_, &attended_, &last_, &logits_}) {
      const int64_t cols = rows == &logits_                   ? kVocab
                           : rows == &key_ || rows == &value_ ? kKvHeads * kHeadDim
                                                              : kHidden;
      *rows = {reinterpret_cast<float*>(Take(kMaxSequences * cols * 4)), kMaxSequences, cols, cols};
    }
    const int64_t scratch_bytes = backend_->ScratchBytes(limits);
    scratch_ = Take(scratch_bytes > 0 ? scratch_bytes : 64);
    scratch_bytes_ = scratch_bytes;
    limits_ = limits;
    for (int64_t i = 0; i < kHeadDim / 2; ++i) {
      inv_freq_.push_back(std::pow(100.0f, -static_cast<float>(i) * 2 / kHeadDim));
    }
    for (int32_t page = 0; page < kMaxSequences * kPagesEach; ++page) pages_.push_back(page);
  }

  // h = Embedding(tokens); h += O·Attention(...); sampled from Table·RmsNorm(h).
  ToyAnswer Run(const ToyStep& step) {
    const auto count = static_cast<int64_t>(step.tokens.size());
    std::vector<SequenceRows> sequences;
    std::vector<int32_t> gathered;
    std::vector<SamplingPlan> plans(step.tokens.size());
    for (int64_t i = 0; i < count; ++i) {
      sequences.push_back(
          {i, 1, step.positions[static_cast<size_t>(i)], pages_.data() + i * kPagesEach});
      gathered.push_back(static_cast<int32_t>(count - 1 - i));
      plans[static_cast<size_t>(i)].row = static_cast<int32_t>(i);
      plans[static_cast<size_t>(i)].num_logprobs = step.num_logprobs;
    }
    const auto rows = [&](const Activations& all) { return all.Rows(0, count); };
    const VectorView norm = {norm_, DType::kF32, kHidden};
    backend_->UseScratch(scratch_, scratch_bytes_, limits_);
    backend_->Embedding(table_, step.tokens, false, rows(h_));
    backend_->RmsNorm(rows(h_), norm, 1e-5f, rows(x_));
    const MatMulPart qkv[] = {
        {&q_, {}, rows(query_)}, {&k_, {}, rows(key_)}, {&v_, {}, rows(value_)}};
    backend_->MatMul(rows(x_), qkv);
    backend_->RopeAndStore(rows(query_), rows(key_), rows(value_), inv_freq_, sequences, cache_, 0);
    backend_->PagedAttention(rows(query_), sequences, cache_, 0, 0.25f, rows(attended_));
    const MatMulPart out[] = {{&o_, {}, rows(h_), true}};
    backend_->MatMul(rows(attended_), out);
    backend_->GatherRows(rows(h_), gathered, rows(last_));
    backend_->RmsNorm(rows(last_), norm, 1e-5f, rows(last_));
    const MatMulPart head[] = {{&table_, {}, rows(logits_)}};
    backend_->MatMul(rows(last_), head);
    ToyAnswer answer;
    answer.sampled.resize(step.tokens.size());
    backend_->Sample(rows(logits_), plans, answer.sampled);
    answer.hidden.resize(static_cast<size_t>(count * kHidden));
    backend_->CopyToHost(answer.hidden.data(), h_.data, count * kHidden * 4);
    answer.status = backend_->Finish();
    return answer;
  }

 private:
  char* Take(int64_t bytes) {
    absl::StatusOr<Buffer> buffer = backend_->Allocate(bytes);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    memory_.push_back(*std::move(buffer));
    return memory_.back().data();
  }
  Weight Make(int64_t n, int64_t k, uint32_t seed) {
    const WeightSpec spec = {.format = WeightFormat::kF16, .n = n, .k = k};
    Weight weight = {.spec = spec, .codes = Take(backend_->PackedBytes(spec).codes)};
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.2f);
    std::vector<uint16_t> values(static_cast<size_t>(n * k));
    for (uint16_t& value : values) value = F32ToF16(normal(random));
    EXPECT_TRUE(backend_->Pack16(0, n, values.data(), &weight).ok());
    return weight;
  }

  Backend* const backend_;
  std::vector<Buffer> memory_;
  Weight table_, q_, k_, v_, o_;
  char* norm_ = nullptr;
  KvCache cache_;
  Activations h_, x_, query_, key_, value_, attended_, last_, logits_;
  char* scratch_ = nullptr;
  int64_t scratch_bytes_ = 0;
  BackendLimits limits_;
  std::vector<float> inv_freq_;
  std::vector<int32_t> pages_;
};

// `count` sequences whose positions 0 … are computed one step at a time.
inline ToyStep ToyStepAt(int64_t position, int64_t count, int32_t num_logprobs = -1) {
  ToyStep step;
  step.num_logprobs = num_logprobs;
  for (int64_t i = 0; i < count; ++i) {
    step.tokens.push_back(static_cast<int32_t>((i * 31 + position * 17) % ToyDecoder::kVocab));
    step.positions.push_back(position);
  }
  return step;
}

}  // namespace nibble::cuda
