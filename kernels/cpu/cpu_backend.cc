// Operations that are one row at a time, and the way to those that have their own file.
#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_set.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/sampling.h"

namespace nibble {
namespace {

constexpr int kMaxThreads = 1024;

// Work of one value, in multiplications, roughly.
constexpr int64_t kNormWork = 3;
constexpr int64_t kExpWork = 12;

constexpr int64_t kHalfWork = 4;
constexpr int64_t kCodeWork = 8;

LaneVector LanesOf(const VectorView& vector) { return {vector.data, LaneTypeOf(vector.dtype)}; }

void PoolSequence(const IsaTable& isa, const Activations& x, const SequenceRows& sequence,
                  Pooling pooling, bool normalize, float* out, int64_t cols) {
  const int64_t last = sequence.first_row + sequence.num_rows - 1;
  const int64_t first = pooling == Pooling::kLast ? last : sequence.first_row;
  std::copy_n(x.Row(first), cols, out);
  if (pooling == Pooling::kMean) {
    for (int64_t row = first + 1; row <= last; ++row) isa.add(x.Row(row), cols, out);
    isa.divide(out, cols, static_cast<float>(sequence.num_rows));
  }
  if (!normalize) return;
  const float norm = std::sqrt(isa.sum_squares(out, cols));
  if (norm > 0) isa.divide(out, cols, norm);
}

// Values of a table that are unpacked at a time.
constexpr size_t kEmbedChunk = 512;

// out (+)= row `id` of a 16-bit table.
void EmbedHalves(const IsaTable& isa, const Weight& table, int64_t id, bool accumulate,
                 std::span<float> out) {
  const LaneType type = table.spec.format == WeightFormat::kF16 ? kLaneF16 : kLaneBF16;
  uint16_t values[kEmbedChunk];
  for (size_t k = 0; k < out.size(); k += kEmbedChunk) {
    const std::span<uint16_t> some(values, std::min(kEmbedChunk, out.size() - k));
    UnpackRow16(table, id, static_cast<int64_t>(k), some);
    isa.convert(values, type, std::ssize(some), accumulate ? 1 : 0, out.data() + k);
  }
}

// Likewise of a 4-bit or INT8 table.
void EmbedCodes(const IsaTable& isa, const Weight& table, int64_t id, bool accumulate,
                std::span<float> out) {
  if (!accumulate) return UnpackRow(table, id, 0, out);
  float values[kEmbedChunk];
  for (size_t k = 0; k < out.size(); k += kEmbedChunk) {
    const std::span<float> some(values, std::min(kEmbedChunk, out.size() - k));
    UnpackRow(table, id, static_cast<int64_t>(k), some);
    isa.add(values, std::ssize(some), out.data() + k);
  }
}

}  // namespace

CpuBackend::CpuBackend(const IsaTable* isa, int num_threads, Compute compute) : pool_(num_threads) {
  context_.isa = isa;
  context_.pool = &pool_;
  context_.compute = compute;
}

absl::StatusOr<Buffer> CpuBackend::Allocate(int64_t bytes) { return AllocateResident(bytes); }

int64_t CpuBackend::ScratchBytes(const BackendLimits& limits) const {
  return std::max({AttentionScratchBytes(limits, num_threads()),
                   SamplingScratchBytes(limits, num_threads()),
                   MatMulScratchBytes(limits, context_.compute)});
}

void CpuBackend::UseScratch(void* scratch, int64_t bytes, const BackendLimits&) {
  context_.scratch = static_cast<char*>(scratch);
  context_.scratch_bytes = bytes;
}

PackedSize CpuBackend::PackedBytes(const WeightSpec& spec) const { return PackedBytesOf(spec); }

absl::Status CpuBackend::PackInt8(const Int8Matrix& matrix, Weight* weight) {
  return PackInt8Matrix(matrix, weight);
}

absl::Status CpuBackend::PackFourBit(const FourBitMatrix& matrix, Weight* weight) {
  return PackFourBitMatrix(matrix, weight);
}

absl::Status CpuBackend::Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                                Weight* weight) {
  return Pack16Rows(first_row, count, values, weight);
}

absl::Status CpuBackend::CopyToDevice(void* device, const void* host, int64_t bytes) {
  std::memcpy(device, host, static_cast<size_t>(bytes));
  return absl::OkStatus();
}

void CpuBackend::CopyToHost(void* host, const void* device, int64_t bytes) {
  std::memcpy(host, device, static_cast<size_t>(bytes));
}

void CpuBackend::DoMatMul(const Activations& x, std::span<const MatMulPart> parts) {
  CpuMatMul(context_, x, parts);
}

void CpuBackend::DoRmsNorm(const Activations& x, const VectorView& weight, float eps,
                           const Activations& out) {
  context_.RunRows(x.rows, x.cols * kNormWork, [&](int64_t row) {
    context_.isa->rms_norm(x.Row(row), LanesOf(weight), x.cols, eps, out.Row(row));
  });
}

void CpuBackend::DoLayerNorm(const Activations& x, const Activations& residual,
                             const VectorView& weight, const VectorView& bias, float eps,
                             const Activations& out) {
  context_.RunRows(x.rows, x.cols * kNormWork, [&](int64_t row) {
    const float* other = residual.data == nullptr ? nullptr : residual.Row(row);
    context_.isa->layer_norm(x.Row(row), other, LanesOf(weight), LanesOf(bias), x.cols, eps,
                             out.Row(row));
  });
}

void CpuBackend::DoEmbedding(const Weight& table, std::span<const int32_t> ids, bool accumulate,
                             const Activations& out) {
  const bool sixteen = IsSixteenBit(table.spec.format);
  context_.RunRows(out.rows, out.cols * (sixteen ? kHalfWork : kCodeWork), [&](int64_t row) {
    const int64_t id = ids[static_cast<size_t>(row)];
    const auto embed = sixteen ? EmbedHalves : EmbedCodes;
    embed(*context_.isa, table, id, accumulate, {out.Row(row), static_cast<size_t>(out.cols)});
  });
}

void CpuBackend::DoRopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                                std::span<const float> inv_freq,
                                std::span<const SequenceRows> sequences, const KvCache& cache,
                                int64_t layer) {
  CpuRopeAndStore(context_, q, k, v, inv_freq, sequences, cache, layer);
}

void CpuBackend::DoPagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                                  const KvCache& cache, int64_t layer, float scale,
                                  const Activations& out) {
  CpuPagedAttention(context_, q, sequences, cache, layer, scale, out);
}

void CpuBackend::DoEncoderAttention(const Activations& q, const Activations& k,
                                    const Activations& v, std::span<const SequenceRows> sequences,
                                    int64_t num_heads, float scale, const Activations& out) {
  CpuEncoderAttention(context_, q, k, v, sequences, num_heads, scale, out);
}

void CpuBackend::DoSiluMul(const Activations& gate, const Activations& up, const Activations& out) {
  context_.RunRows(gate.rows, gate.cols * kExpWork, [&](int64_t row) {
    context_.isa->silu_mul(gate.Row(row), up.Row(row), gate.cols, out.Row(row));
  });
}

void CpuBackend::DoGelu(const Activations& x, bool tanh_form) {
  context_.RunRows(x.rows, x.cols * kExpWork,
                   [&](int64_t row) { context_.isa->gelu(x.Row(row), x.cols, tanh_form ? 1 : 0); });
}

void CpuBackend::DoGatherRows(const Activations& x, std::span<const int32_t> rows,
                              const Activations& out) {
  context_.RunRows(out.rows, out.cols, [&](int64_t row) {
    std::copy_n(x.Row(rows[static_cast<size_t>(row)]), out.cols, out.Row(row));
  });
}

void CpuBackend::DoPool(const Activations& x, std::span<const SequenceRows> sequences,
                        Pooling pooling, bool normalize, const Activations& out) {
  const int64_t row_work = x.rows * x.cols / std::max<int64_t>(out.rows, 1) + x.cols;
  context_.RunRows(out.rows, row_work, [&](int64_t row) {
    PoolSequence(*context_.isa, x, sequences[static_cast<size_t>(row)], pooling, normalize,
                 out.Row(row), out.cols);
  });
}

void CpuBackend::DoSample(const Activations& logits, std::span<const SamplingPlan> plans,
                          std::span<SampledToken> sampled) {
  CpuSample(context_, logits, plans, sampled);
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const BackendOptions& options) {
  const absl::StatusOr<const IsaTable*> isa = ChooseIsa(options.cpu_isa);
  if (!isa.ok()) return isa.status();
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError("threads: got " + std::to_string(options.num_threads) +
                                      ", want 0 (automatic) … " + std::to_string(kMaxThreads));
  }
  const Compute compute = options.compute == Compute::kAuto ? AutoCompute(**isa) : options.compute;
  const int threads = options.num_threads == 0 ? DefaultThreads() : options.num_threads;
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(*isa, threads, compute));
}

}  // namespace nibble
