// The decoder's equations over random weights.
#include "tests/bench/cuda/random_llama.h"

#include <array>
#include <cmath>

namespace nibble::bench {
namespace {

WeightSpec Spec(WeightFormat format, int64_t n, int64_t k) {
  WeightSpec spec;
  spec.format = format;
  spec.n = n;
  spec.k = k;
  return spec;
}

MatMulPart Part(const Weight& weight, const Activations& out, bool accumulate = false) {
  return {&weight, {}, out, accumulate};
}

}  // namespace

int64_t RandomLlama::Place(char* data) {
  int64_t at = 0;
  const auto place = [&](Weight* weight, WeightFormat format, int64_t n, int64_t k) {
    const WeightSpec spec = Spec(format, n, k);
    if (data != nullptr) *weight = machine_->RandomWeightAt(data + at, spec);
    at += machine_->PlacedBytes(spec);
  };
  const int64_t q_width = form_.heads * form_.head_dim, kv_width = form_.kv_heads * form_.head_dim;
  for (Layer& layer : layers_) {
    place(&layer.q, form_.format, q_width, form_.hidden);
    place(&layer.k, form_.format, kv_width, form_.hidden);
    place(&layer.v, form_.format, kv_width, form_.hidden);
    place(&layer.o, form_.format, form_.hidden, q_width);
    place(&layer.gate, form_.format, form_.ffn, form_.hidden);
    place(&layer.up, form_.format, form_.ffn, form_.hidden);
    place(&layer.down, form_.format, form_.hidden, form_.ffn);
  }
  place(&head_, WeightFormat::kBf16, form_.vocab, form_.hidden);
  weight_bytes_ = at;
  place(&embedding_, WeightFormat::kBf16, form_.vocab, form_.hidden);
  return at;
}

RandomLlama::RandomLlama(Machine* machine, const LlamaForm& form)
    : machine_(machine), form_(form), layers_(static_cast<size_t>(form.layers)) {
  Place(machine->Allocate(Place(nullptr)));
  norm_ = {machine->RandomRows(1, form.hidden).data, DType::kF32, form.hidden};
  cache_ = {nullptr,       DType::kF16,  form.layers, form.kv_positions / kPageSlots,
            form.kv_heads, form.head_dim};
  cache_.data = machine->Allocate(cache_.Bytes());
  machine->Fill(cache_.data, cache_.Bytes(), Machine::Content::kHalves);
  for (int64_t i = 0; i < form.head_dim / 2; ++i) {
    inv_freq_.push_back(
        std::pow(500000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(form.head_dim)));
  }
  const auto rows = [&](int64_t count, int64_t cols) {
    return Activations{machine->Make<float>(count * cols), count, cols, cols};
  };
  hidden_ = rows(form.max_rows, form.hidden);
  normed_ = rows(form.max_rows, form.hidden);
  q_ = rows(form.max_rows, form.heads * form.head_dim);
  k_ = rows(form.max_rows, form.kv_heads * form.head_dim);
  v_ = rows(form.max_rows, form.kv_heads * form.head_dim);
  attended_ = rows(form.max_rows, form.heads * form.head_dim);
  gate_ = rows(form.max_rows, form.ffn);
  up_ = rows(form.max_rows, form.ffn);
  last_ = rows(form.max_rows, form.hidden);
  logits_ = rows(form.max_rows, form.vocab);
  limits_.max_rows = limits_.max_samples = form.max_rows;
  limits_.max_context = form.kv_positions;
  limits_.max_heads = form.heads;
  limits_.max_head_dim = form.head_dim;
  limits_.max_k = std::max(form.ffn, form.hidden);
  limits_.int8 = false;
  limits_.max_vocab = form.vocab;
  scratch_bytes_ = machine->backend().ScratchBytes(limits_);
  scratch_ = machine->AllocateZeroed(scratch_bytes_);
  machine->Finish();
}

absl::Status RandomLlama::Decode(int64_t count, int64_t position) {
  const int64_t pages = position / kPageSlots + 1;
  sequences_.clear();
  pages_.resize(static_cast<size_t>(count * pages));
  for (size_t i = 0; i < pages_.size(); ++i) pages_[i] = static_cast<int32_t>(i);
  plans_.assign(static_cast<size_t>(count), {});
  for (int64_t s = 0; s < count; ++s) {
    sequences_.push_back({s, 1, position, &pages_[static_cast<size_t>(s * pages)]});
    plans_[static_cast<size_t>(s)].row = static_cast<int32_t>(s);
    plans_[static_cast<size_t>(s)].position = static_cast<uint32_t>(position);
  }
  return Step(count);
}

absl::Status RandomLlama::Prefill(int64_t rows) {
  pages_.resize(static_cast<size_t>((rows + kPageSlots - 1) / kPageSlots));
  for (size_t i = 0; i < pages_.size(); ++i) pages_[i] = static_cast<int32_t>(i);
  sequences_ = {{0, rows, 0, pages_.data()}};
  plans_.assign(1, {});
  plans_[0].row = static_cast<int32_t>(rows - 1);
  return Step(rows);
}

absl::Status RandomLlama::Step(int64_t rows) {
  Backend& backend = machine_->backend();
  backend.UseScratch(scratch_, scratch_bytes_, limits_);
  tokens_.assign(static_cast<size_t>(rows), 1);
  const Activations h = hidden_.Rows(0, rows);
  backend.Embedding(embedding_, tokens_, /*accumulate=*/false, h);
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    Attend(layer, h);
    FeedForward(layer, h);
  }
  rows_.clear();
  for (SamplingPlan& plan : plans_) {
    rows_.push_back(plan.row);
    plan.row = static_cast<int32_t>(rows_.size()) - 1;
  }
  const auto samples = static_cast<int64_t>(rows_.size());
  const Activations last = last_.Rows(0, samples), logits = logits_.Rows(0, samples);
  backend.GatherRows(h, rows_, last);
  backend.RmsNorm(last, norm_, 1e-5f, last);
  backend.MatMul(last, std::array{Part(head_, logits)});
  sampled_.resize(rows_.size());
  backend.Sample(logits, plans_, sampled_);
  return backend.Finish();
}

void RandomLlama::Attend(size_t layer, const Activations& h) {
  Backend& backend = machine_->backend();
  const Layer& weights = layers_[layer];
  const Activations x = normed_.Rows(0, h.rows), attended = attended_.Rows(0, h.rows);
  const Activations q = q_.Rows(0, h.rows), k = k_.Rows(0, h.rows), v = v_.Rows(0, h.rows);
  const float scale = 1.0f / std::sqrt(static_cast<float>(form_.head_dim));
  const auto number = static_cast<int64_t>(layer);
  backend.RmsNorm(h, norm_, 1e-5f, x);
  backend.MatMul(x, std::array{Part(weights.q, q), Part(weights.k, k), Part(weights.v, v)});
  backend.RopeAndStore(q, k, v, inv_freq_, sequences_, cache_, number);
  backend.PagedAttention(q, sequences_, cache_, number, scale, attended);
  backend.MatMul(attended, std::array{Part(weights.o, h, true)});
}

void RandomLlama::FeedForward(size_t layer, const Activations& h) {
  Backend& backend = machine_->backend();
  const Layer& weights = layers_[layer];
  const Activations x = normed_.Rows(0, h.rows);
  const Activations gate = gate_.Rows(0, h.rows), up = up_.Rows(0, h.rows);
  backend.RmsNorm(h, norm_, 1e-5f, x);
  backend.MatMul(x, std::array{Part(weights.gate, gate), Part(weights.up, up)});
  backend.SiluMul(gate, up, gate);
  backend.MatMul(gate, std::array{Part(weights.down, h, true)});
}

}  // namespace nibble::bench
