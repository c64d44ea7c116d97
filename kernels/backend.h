// The one interface between the engine and a device: memory and about a dozen operations.
// Public methods check shapes, once, for every device (a wrong shape is our bug and aborts);
// private Do… compute.
//
// Thread rule: one thread at a time (the engine's), except Allocate, PackedBytes, Pack…,
// CopyToDevice and IsLost, which other threads may call meanwhile. Operations are asynchronous on
// devices that are; Finish() waits for all of them. No operation allocates: scratch memory is lent
// by the model through UseScratch.
//
// Numbers (compute=fp32): every output row depends only on its own inputs, with one order of
// additions for any number of rows or threads and on every ISA row of the CPU, so results are equal
// bit for bit. compute=bf16 multiplies numbers of 16 bits where a device says so, with fp32 sums
// (kernels/README.md). INT8 weights have an arithmetic of their own (MatMul), in every numeric
// mode.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend_options.h"
#include "kernels/buffer.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"
#include "kernels/kv_layout.h"
#include "kernels/pooling.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"
#include "kernels/weight.h"

namespace nibble {

// One product of a grouped matmul: out = x·Wᵀ + bias, or out += x·Wᵀ + bias.
struct MatMulPart {
  const Weight* weight = nullptr;
  VectorView bias;          // [N], may be absent
  Activations out;          // [M, N]
  bool accumulate = false;  // out += …: the residual
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string device() const = 0;  // "cpu", "cuda:0": the `device` label of every metric
  virtual std::string isa() const = 0;     // "avx512", "sm_90"
  virtual int num_threads() const = 0;     // CPU threads that compute and load
  virtual Compute compute() const = 0;     // never kAuto
  // A failure took the device away from this process for good; nothing can be computed any more.
  virtual bool IsLost() const { return false; }

  // --- memory ---

  // What the device took when it was made, in its own memory; it takes no more by itself.
  virtual BackendMemory OwnMemory() const { return {}; }
  // What models and OwnMemory may take together unless told otherwise; 0: the host's memory, of
  // which the engine knows more.
  virtual int64_t DeviceBytes() const { return 0; }
  // Zeroed, 256-aligned (the CPU's: 4096, and faulted in). Errors: RESOURCE_EXHAUSTED with the
  // bytes asked for; INTERNAL.
  virtual absl::StatusOr<Buffer> Allocate(int64_t bytes) = 0;
  // Errors: UNIMPLEMENTED, with got and wanted, for limits that some operation cannot serve; a
  // model that has them is not loaded.
  virtual absl::Status CheckLimits(const BackendLimits& /*limits*/) const {
    return absl::OkStatus();
  }
  // Scratch memory that operations within these limits need.
  virtual int64_t ScratchBytes(const BackendLimits& limits) const = 0;
  // The scratch memory for the operations that follow; the model that is about to run owns it (and
  // the ledger counts it). 64-aligned; `limits` are those that ScratchBytes was asked with.
  virtual void UseScratch(void* scratch, int64_t bytes, const BackendLimits& limits) = 0;

  // Exactly the bytes that a packed matrix takes. For 4 bits with N % 16 == 0 and K % 64 == 0 this
  // is N·K/2 codes, one fp32 or one byte per group, and with double quantization 4 per 256 groups +
  // 4; for INT8 N·K + 4·N.
  virtual PackedSize PackedBytes(const WeightSpec& spec) const = 0;
  // Permutes a quantized matrix into weight->{codes,scales,nested,tables}, which the caller has
  // allocated. Errors: INVALID_ARGUMENT when the matrix has another shape or form than the weight,
  // arrays of wrong lengths, or tables that the weight has no room for.
  virtual absl::Status PackFourBit(const FourBitMatrix& matrix, Weight* weight) = 0;
  // Errors: likewise, and for more than kMaxInt8Columns columns.
  virtual absl::Status PackInt8(const Int8Matrix& matrix, Weight* weight) = 0;
  // Permutes rows [first_row, first_row + count) of a 16-bit matrix; values: [count, K] in the
  // weight's own type.
  virtual absl::Status Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                              Weight* weight) = 0;
  // Small vectors: host to device and back.
  // Errors: INTERNAL. A failed CopyToHost is told by Finish.
  virtual absl::Status CopyToDevice(void* device, const void* host, int64_t bytes) = 0;
  virtual void CopyToHost(void* host, const void* device, int64_t bytes) = 0;

  // --- operations; all activations fp32, [M, …] ---

  // out_i[m,n] (+)= Σ_k x[m,k]·w_i[n,k] + bias_i[n], one pass over all parts. x: [M, K].
  // 4 bits: sums raw codes over k ascending within a group, then adds group sum · scale, groups
  // ascending, all in FMA.
  // INT8: LLM.int8() with outliers chosen row by row; INT8 parts of one call have one threshold.
  // Each step is rounded to fp32 unless told:
  //   a = fp16(x[m,k]), or x[m,k] itself where fp16 has no finite value for it;
  //   an outlier is an a that is not below outlier_threshold in magnitude (0: not finite), so a
  //   NaN is one; stat = the largest other |a|;
  //   q = rint_even(a · (127 / stat)), 0 at outliers and where stat is 0; S = Σ_k q·code, exact;
  //   out = fma((S · stat) · absmax[n], fp32(1/127²), bias);
  //   then for each outlier, k ascending, out = fma(a, (code · absmax[n]) · fp32(1/127), out);
  //   then the old value, when accumulating.
  // bitsandbytes rounds out, the weights of outliers and their sum to fp16; here all stay fp32.
  void MatMul(const Activations& x, std::span<const MatMulPart> parts);

  // out[m] = x[m] / sqrt(mean(x[m]²) + eps) · weight. out may be x.
  void RmsNorm(const Activations& x, const VectorView& weight, float eps, const Activations& out);

  // out[m] = (s - mean(s)) / sqrt(var(s) + eps) · weight + bias, s = x[m] + residual[m]. residual
  // may be empty; out may be x.
  void LayerNorm(const Activations& x, const Activations& residual, const VectorView& weight,
                 const VectorView& bias, float eps, const Activations& out);

  // out[m] (+)= table[ids[m]], the table being a packed weight [V, D] of any form: exactly the fp32
  // values that it stands for (kernels/four_bit.h, kernels/int8.h), in every numeric mode.
  void Embedding(const Weight& table, std::span<const int32_t> ids, bool accumulate,
                 const Activations& out);

  // Rotates q and k in place (half-split: element i with i + head_dim/2, angle
  // position·inv_freq[i]) and writes k and v into the cache's pages. q: [M, H·hd], k, v: [M,
  // KV·hd]; inv_freq: host fp32 [head_dim/2].
  void RopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                    std::span<const float> inv_freq, std::span<const SequenceRows> sequences,
                    const KvCache& cache, int64_t layer);

  // out[m] = softmax(q[m]·Kᵀ·scale) · V over positions 0 … position(m), query head h using KV head
  // h / (H / KV). Online softmax page by page. q, out: [M, H·hd].
  void PagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                      const KvCache& cache, int64_t layer, float scale, const Activations& out);

  // Every row attends to every row of its own sequence. q, k, v, out: [M, H·hd]; `start` and
  // `pages` unused.
  void EncoderAttention(const Activations& q, const Activations& k, const Activations& v,
                        std::span<const SequenceRows> sequences, int64_t num_heads, float scale,
                        const Activations& out);

  // out = silu(gate) · up. out may be gate.
  void SiluMul(const Activations& gate, const Activations& up, const Activations& out);
  // x = gelu(x): exact (erf) or the tanh form.
  void Gelu(const Activations& x, bool tanh_form);

  // out[i] = x[rows[i]].
  void GatherRows(const Activations& x, std::span<const int32_t> rows, const Activations& out);

  // out[s] = pooled rows of sequence s, then its first out.cols values, divided by their L2 norm if
  // `normalize` (a zero vector stays zero). out: [sequences, <= D].
  void Pool(const Activations& x, std::span<const SequenceRows> sequences, Pooling pooling,
            bool normalize, const Activations& out);

  // One token per plan from logits [R, V]; see kernels/sampling.h. `sampled` lives on the host and
  // is complete when this returns.
  void Sample(const Activations& logits, std::span<const SamplingPlan> plans,
              std::span<SampledToken> sampled);

  // Waits for everything asked so far. Errors: INTERNAL when the device failed; what was asked
  // since the last Finish is then undefined, the next step begins afresh.
  virtual absl::Status Finish() = 0;
  // Lets the CPU pool's threads park (called by an idle engine); the next operation wakes them.
  virtual void Park() = 0;

 private:
  virtual void DoMatMul(const Activations& x, std::span<const MatMulPart> parts) = 0;
  virtual void DoRmsNorm(const Activations& x, const VectorView& weight, float eps,
                         const Activations& out) = 0;
  virtual void DoLayerNorm(const Activations& x, const Activations& residual,
                           const VectorView& weight, const VectorView& bias, float eps,
                           const Activations& out) = 0;
  virtual void DoEmbedding(const Weight& table, std::span<const int32_t> ids, bool accumulate,
                           const Activations& out) = 0;
  virtual void DoRopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                              std::span<const float> inv_freq,
                              std::span<const SequenceRows> sequences, const KvCache& cache,
                              int64_t layer) = 0;
  virtual void DoPagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                                const KvCache& cache, int64_t layer, float scale,
                                const Activations& out) = 0;
  virtual void DoEncoderAttention(const Activations& q, const Activations& k, const Activations& v,
                                  std::span<const SequenceRows> sequences, int64_t num_heads,
                                  float scale, const Activations& out) = 0;
  virtual void DoSiluMul(const Activations& gate, const Activations& up,
                         const Activations& out) = 0;
  virtual void DoGelu(const Activations& x, bool tanh_form) = 0;
  virtual void DoGatherRows(const Activations& x, std::span<const int32_t> rows,
                            const Activations& out) = 0;
  virtual void DoPool(const Activations& x, std::span<const SequenceRows> sequences,
                      Pooling pooling, bool normalize, const Activations& out) = 0;
  virtual void DoSample(const Activations& logits, std::span<const SamplingPlan> plans,
                        std::span<SampledToken> sampled) = 0;
};

// Errors: INVALID_ARGUMENT (unknown device or ISA, ISA the CPU lacks, a GPU's number too large),
// UNAVAILABLE (no such device in this build or machine), UNIMPLEMENTED (a compute mode that the
// device does not have), RESOURCE_EXHAUSTED.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const BackendOptions& options);
// The CPU backend, and the slow, obvious one that tests compare with (kernels/reference, linked by
// tests only).
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const BackendOptions& options);
absl::StatusOr<std::unique_ptr<Backend>> MakeReferenceBackend();
// kernels/cuda or kernels/no_cuda.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendOptions& options);

}  // namespace nibble
