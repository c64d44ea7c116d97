// A device that computes nothing: for engines whose models are fakes. Any operation on it aborts.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>

#include "kernels/backend.h"

namespace nibble {

class FakeBackend final : public Backend {
 public:
  std::string device() const override { return "fake:0"; }
  std::string isa() const override { return "none"; }
  int num_threads() const override { return 1; }
  Compute compute() const override { return Compute::kFp32; }
  void Park() override { ++parks; }

  absl::StatusOr<Buffer> Allocate(int64_t) override { std::abort(); }
  int64_t ScratchBytes(const BackendLimits&) const override { std::abort(); }
  void UseScratch(void*, int64_t, const BackendLimits&) override { std::abort(); }
  PackedSize PackedBytes(const WeightSpec&) const override { std::abort(); }
  absl::Status PackFourBit(const FourBitMatrix&, Weight*) override { std::abort(); }
  absl::Status PackInt8(const Int8Matrix&, Weight*) override { std::abort(); }
  absl::Status Pack16(int64_t, int64_t, const uint16_t*, Weight*) override { std::abort(); }
  absl::Status CopyToDevice(void*, const void*, int64_t) override { std::abort(); }
  void CopyToHost(void*, const void*, int64_t) override { std::abort(); }
  absl::Status Finish() override { std::abort(); }

  std::atomic<int> parks = 0;

 private:
  using Rows = Activations;
  using Sequences = std::span<const SequenceRows>;

  void DoMatMul(const Rows&, std::span<const MatMulPart>) override { std::abort(); }
  void DoRmsNorm(const Rows&, const VectorView&, float, const Rows&) override { std::abort(); }
  void DoLayerNorm(const Rows&, const Rows&, const VectorView&, const VectorView&, float,
                   const Rows&) override {
    std::abort();
  }
  void DoEmbedding(const Weight&, std::span<const int32_t>, bool, const Rows&) override {
    std::abort();
  }
  void DoRopeAndStore(const Rows&, const Rows&, const Rows&, std::span<const float>, Sequences,
                      const KvCache&, int64_t) override {
    std::abort();
  }
  void DoPagedAttention(const Rows&, Sequences, const KvCache&, int64_t, float,
                        const Rows&) override {
    std::abort();
  }
  void DoEncoderAttention(const Rows&, const Rows&, const Rows&, Sequences, int64_t, float,
                          const Rows&) override {
    std::abort();
  }
  void DoSiluMul(const Rows&, const Rows&, const Rows&) override { std::abort(); }
  void DoGelu(const Rows&, bool) override { std::abort(); }
  void DoGatherRows(const Rows&, std::span<const int32_t>, const Rows&) override { std::abort(); }
  void DoPool(const Rows&, Sequences, Pooling, bool, const Rows&) override { std::abort(); }
  void DoSample(const Rows&, std::span<const SamplingPlan>, std::span<SampledToken>) override {
    std::abort();
  }
};

}  // namespace nibble
