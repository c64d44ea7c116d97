// Operations: host arguments among the step's inputs, then onto the tape.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sample_plans.h"
#include "kernels/cuda/sampling.h"

namespace nibble::cuda {
namespace {

absl::Status DoesNotFit(const char* what) {
  return absl::InternalError(std::string(what) + " do not fit the GPU's step inputs");
}

}  // namespace

template <typename Op>
void CudaBackend::WithArray(std::span<const int32_t> values, const Op& op) {
  const auto array = step_.AddInput([&](StepInputs* inputs) { return inputs->Add(values); });
  if (!array.has_value()) return step_.Fail(DoesNotFit("a step's rows"));
  op(step_.tape(), *array);
}

template <typename Op>
void CudaBackend::WithSequences(std::span<const SequenceRows> sequences, int64_t num_rows,
                                std::span<const float> inv_freq, const Op& op, int64_t first) {
  struct Added {
    DeviceSequences sequences;
    const float* inv_freq;
  };
  // Both or none: making room forgets what was added before.
  const auto added = step_.AddInput([&](StepInputs* inputs) -> std::optional<Added> {
    const auto on_device = inputs->AddSequences(sequences, num_rows);
    const auto shared = inputs->AddOnce(inv_freq);
    if (!on_device.has_value() || !shared.has_value()) return std::nullopt;
    return Added{*on_device, *shared};
  });
  if (added.has_value()) return op(step_.tape(), added->sequences, added->inv_freq, first);
  if (sequences.size() == 1) return step_.Fail(DoesNotFit("a sequence's pages"));
  const size_t half = sequences.size() / 2;
  WithSequences(sequences.first(half), num_rows, inv_freq, op, first);
  WithSequences(sequences.subspan(half), num_rows, inv_freq, op,
                first + static_cast<int64_t>(half));
}

AttentionSetup CudaBackend::Attention() const {
  return {.exact = exact_, .max_context = limits_.max_context, .scratch = SharedScratch()};
}

void CudaBackend::DoMatMul(const Activations& x, std::span<const MatMulPart> parts) {
  cuda::MatMul(step_.tape(), matmul_, x, parts);
}

void CudaBackend::DoRmsNorm(const Activations& x, const VectorView& weight, float eps,
                            const Activations& out) {
  cuda::RmsNorm(step_.tape(), x, weight, eps, out);
}

void CudaBackend::DoLayerNorm(const Activations& x, const Activations& residual,
                              const VectorView& weight, const VectorView& bias, float eps,
                              const Activations& out) {
  cuda::LayerNorm(step_.tape(), x, residual, weight, bias, eps, out);
}

void CudaBackend::DoEmbedding(const Weight& table, std::span<const int32_t> ids, bool accumulate,
                              const Activations& out) {
  WithArray(ids, [&](Tape* tape, const int32_t* on_device) {
    cuda::Embedding(tape, matmul_.tables, table, on_device, accumulate, out);
  });
}

void CudaBackend::DoRopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                                 std::span<const float> inv_freq,
                                 std::span<const SequenceRows> sequences, const KvCache& cache,
                                 int64_t layer) {
  WithSequences(sequences, q.rows, inv_freq,
                [&](Tape* tape, const DeviceSequences& on_device, const float* freq, int64_t) {
                  cuda::RopeAndStore(tape, q, k, v, freq, on_device, cache, layer);
                });
}

void CudaBackend::DoPagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                                   const KvCache& cache, int64_t layer, float scale,
                                   const Activations& out) {
  WithSequences(sequences, q.rows, {},
                [&](Tape* tape, const DeviceSequences& on_device, const float*, int64_t) {
                  cuda::PagedAttention(tape, Attention(), q, on_device, cache, layer, scale, out);
                });
}

void CudaBackend::DoEncoderAttention(const Activations& q, const Activations& k,
                                     const Activations& v, std::span<const SequenceRows> sequences,
                                     int64_t num_heads, float scale, const Activations& out) {
  WithSequences(sequences, q.rows, {},
                [&](Tape* tape, const DeviceSequences& on_device, const float*, int64_t) {
                  cuda::EncoderAttention(tape, Attention(), q, k, v, on_device, num_heads, scale,
                                         out);
                });
}

void CudaBackend::DoSiluMul(const Activations& gate, const Activations& up,
                            const Activations& out) {
  cuda::SiluMul(step_.tape(), gate, up, out);
}

void CudaBackend::DoGelu(const Activations& x, bool tanh_form) {
  cuda::Gelu(step_.tape(), x, tanh_form);
}

void CudaBackend::DoGatherRows(const Activations& x, std::span<const int32_t> rows,
                               const Activations& out) {
  WithArray(rows, [&](Tape* tape, const int32_t* on_device) {
    cuda::GatherRows(tape, x, on_device, out);
  });
}

void CudaBackend::DoPool(const Activations& x, std::span<const SequenceRows> sequences,
                         Pooling pooling, bool normalize, const Activations& out) {
  WithSequences(sequences, x.rows, {},
                [&](Tape* tape, const DeviceSequences& on_device, const float*, int64_t first) {
                  cuda::Pool(tape, x, on_device, pooling, normalize,
                             out.Rows(first, on_device.num_sequences));
                });
}

void CudaBackend::DoSample(const Activations& logits, std::span<const SamplingPlan> plans,
                           std::span<SampledToken> sampled) {
  while (!plans.empty()) {
    const size_t count = SampleSome(logits, plans, sampled);
    if (count == 0) return;
    plans = plans.subspan(count);
    sampled = sampled.subspan(count);
  }
}

size_t CudaBackend::SampleSome(const Activations& logits, std::span<const SamplingPlan> plans,
                               std::span<SampledToken> sampled) {
  size_t count = PlansThatFit(plans, logits.cols, step_.result_bytes());
  for (; count > 0; count /= 2) {
    const std::span<const SamplingPlan> some = plans.first(count);
    const auto task = step_.AddInput(
        [&](StepInputs* inputs) { return AddPlans(some, logits.cols, step_.results(), inputs); });
    if (!task.has_value()) continue;
    cuda::Sample(step_.tape(), logits, *task, SharedScratch());
    const char* const results = step_.FetchResults(ResultBytes(some, logits.cols));
    if (results == nullptr) return 0;
    ReadSampled(some, logits.cols, results, sampled);
    return count;
  }
  step_.Fail(DoesNotFit("a sampling plan's lists"));
  return 0;
}

}  // namespace nibble::cuda
