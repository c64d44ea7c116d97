// The CPU as a backend: one ISA row, one thread pool, every operation complete when it returns.
// Thread rule: as kernels/backend.h says.
#pragma once

#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/cpu/context.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/thread_pool.h"

namespace nibble {

class CpuBackend final : public Backend {
 public:
  // compute: not kAuto.
  CpuBackend(const IsaTable* isa, int num_threads, Compute compute);

  std::string device() const override { return "cpu"; }
  std::string isa() const override { return context_.isa->name; }
  int num_threads() const override { return pool_.num_threads(); }
  Compute compute() const override { return context_.compute; }

  absl::StatusOr<Buffer> Allocate(int64_t bytes) override;
  int64_t ScratchBytes(const BackendLimits& limits) const override;
  void UseScratch(void* scratch, int64_t bytes, const BackendLimits& limits) override;
  PackedSize PackedBytes(const WeightSpec& spec) const override;
  absl::Status PackFourBit(const FourBitMatrix& matrix, Weight* weight) override;
  absl::Status PackInt8(const Int8Matrix& matrix, Weight* weight) override;
  absl::Status Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                      Weight* weight) override;
  absl::Status CopyToDevice(void* device, const void* host, int64_t bytes) override;
  void CopyToHost(void* host, const void* device, int64_t bytes) override;
  absl::Status Finish() override { return absl::OkStatus(); }
  void Park() override { pool_.Park(); }

 private:
  void DoMatMul(const Activations& x, std::span<const MatMulPart> parts) override;
  void DoRmsNorm(const Activations& x, const VectorView& weight, float eps,
                 const Activations& out) override;
  void DoLayerNorm(const Activations& x, const Activations& residual, const VectorView& weight,
                   const VectorView& bias, float eps, const Activations& out) override;
  void DoEmbedding(const Weight& table, std::span<const int32_t> ids, bool accumulate,
                   const Activations& out) override;
  void DoRopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                      std::span<const float> inv_freq, std::span<const SequenceRows> sequences,
                      const KvCache& cache, int64_t layer) override;
  void DoPagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                        const KvCache& cache, int64_t layer, float scale,
                        const Activations& out) override;
  void DoEncoderAttention(const Activations& q, const Activations& k, const Activations& v,
                          std::span<const SequenceRows> sequences, int64_t num_heads, float scale,
                          const Activations& out) override;
  void DoSiluMul(const Activations& gate, const Activations& up, const Activations& out) override;
  void DoGelu(const Activations& x, bool tanh_form) override;
  void DoGatherRows(const Activations& x, std::span<const int32_t> rows,
                    const Activations& out) override;
  void DoPool(const Activations& x, std::span<const SequenceRows> sequences, Pooling pooling,
              bool normalize, const Activations& out) override;
  void DoSample(const Activations& logits, std::span<const SamplingPlan> plans,
                std::span<SampledToken> sampled) override;

  ThreadPool pool_;
  CpuContext context_;
};

}  // namespace nibble
