// A GPU as a backend: every operation uploads its host arguments and writes on the step's tape,
// which is played, or replayed as a CUDA graph, when a result is wanted (Sample, CopyToHost,
// Finish). Device memory is taken by Make and Allocate only.
// Thread rule: as kernels/backend.h says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/own_blocks.h"
#include "kernels/cuda/step_runner.h"
#include "kernels/cuda/weight_upload.h"

namespace nibble::cuda {

class CudaBackend final : public Backend {
 public:
  // Errors: as MakeCudaBackend.
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Make(const BackendOptions& options,
                                                           const OwnSizes& sizes = {});

  std::string device() const override;
  std::string isa() const override;
  int num_threads() const override { return num_threads_; }
  Compute compute() const override { return exact_ ? Compute::kFp32 : Compute::kBf16; }
  bool IsLost() const override { return cuda::IsLost(); }

  BackendMemory OwnMemory() const override;
  int64_t DeviceBytes() const override { return device_bytes_; }
  absl::StatusOr<Buffer> Allocate(int64_t bytes) override;
  absl::Status CheckLimits(const BackendLimits& limits) const override;
  int64_t ScratchBytes(const BackendLimits& limits) const override;
  void UseScratch(void* scratch, int64_t bytes, const BackendLimits& limits) override;
  PackedSize PackedBytes(const WeightSpec& spec) const override;
  absl::Status PackFourBit(const FourBitMatrix& matrix, Weight* weight) override;
  absl::Status PackInt8(const Int8Matrix& matrix, Weight* weight) override;
  absl::Status Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                      Weight* weight) override;
  absl::Status CopyToDevice(void* device, const void* host, int64_t bytes) override;
  void CopyToHost(void* host, const void* device, int64_t bytes) override;
  absl::Status Finish() override;
  void Park() override {}

  // The step that is being written, and the graphs of earlier ones.
  const StepRunner& step() const { return step_; }

 private:
  CudaBackend(const BackendOptions& options, DeviceTraits traits, int64_t device_bytes,
              OwnBlocks memory, OwnedStream stream, std::unique_ptr<WeightUpload> upload);

  // Scratch memory beside what MatMul needs left alone.
  char* SharedScratch() const;
  AttentionSetup Attention() const;
  // op(tape, the array on the device).
  template <typename Op>
  void WithArray(std::span<const int32_t> values, const Op& op);
  // op(tape, sequences on the device, inv_freq there, number of the first sequence), for all of
  // them at once or, where the inputs' block is too small, for some at a time.
  template <typename Op>
  void WithSequences(std::span<const SequenceRows> sequences, int64_t num_rows,
                     std::span<const float> inv_freq, const Op& op, int64_t first = 0);
  // Samples as many plans as fit; how many those were. 0: it failed.
  size_t SampleSome(const Activations& logits, std::span<const SamplingPlan> plans,
                    std::span<SampledToken> sampled);

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

  const DeviceTraits traits_;
  const int num_threads_;
  const bool exact_;
  const int64_t device_bytes_;
  const OwnBlocks memory_;
  const std::unique_ptr<WeightUpload> upload_;
  StepRunner step_;
  MatMulSetup matmul_;
  BackendLimits limits_;  // of the model that runs
};

}  // namespace nibble::cuda
