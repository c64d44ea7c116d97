// The operations that are one formula, and the way to those that have their own file.
#include "kernels/reference/reference_backend.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numbers>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/int8.h"
#include "kernels/reference/sample.h"
#include "kernels/reference/values.h"
#include "kernels/reference/weights.h"

namespace nibble {
namespace {

using reference::Load;

constexpr int64_t kAlignment = 4096;

// What is to be faulted in at once cannot be larger.
int64_t PhysicalBytes() { return sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE); }

std::vector<double> RowOf(const Activations& x, int64_t row) {
  return {x.Row(row), x.Row(row) + x.cols};
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// What one sequence's rows become: [cols of x], before any truncation.
std::vector<double> PoolRows(const Activations& x, const SequenceRows& sequence, Pooling pooling) {
  if (pooling == Pooling::kCls) return RowOf(x, sequence.first_row);
  if (pooling == Pooling::kLast) return RowOf(x, sequence.first_row + sequence.num_rows - 1);
  std::vector<double> mean(static_cast<size_t>(x.cols), 0.0);
  for (int64_t i = 0; i < sequence.num_rows; ++i) {
    const std::vector<double> row = RowOf(x, sequence.first_row + i);
    for (size_t c = 0; c < mean.size(); ++c) mean[c] += row[c];
  }
  for (double& value : mean) value /= static_cast<double>(sequence.num_rows);
  return mean;
}

// 1 + erf(y) = erfc(-y) and 1 + tanh(y) = 2 / (1 + e^-2y), without the cancellation for y < 0.
double GeluOf(double x, bool tanh_form) {
  if (!tanh_form) return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
  const double inner = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-2 * inner));
}

}  // namespace

absl::StatusOr<Buffer> ReferenceBackend::Allocate(int64_t bytes) {
  if (bytes <= 0) return Buffer();
  void* data = nullptr;
  if (bytes <= PhysicalBytes()) {
    const int64_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    data = std::aligned_alloc(kAlignment, static_cast<size_t>(rounded));
  }
  if (data == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  }
  std::memset(data, 0, static_cast<size_t>(bytes));
  return Buffer(data, bytes, [](void* freed, int64_t) { std::free(freed); });
}

int64_t ReferenceBackend::ScratchBytes(const BackendLimits&) const { return 0; }

void ReferenceBackend::UseScratch(void*, int64_t, const BackendLimits&) {}

PackedSize ReferenceBackend::PackedBytes(const WeightSpec& spec) const {
  return reference::BytesOf(spec);
}

absl::Status ReferenceBackend::PackInt8(const Int8Matrix& matrix, Weight* weight) {
  return reference::Pack(matrix, weight);
}

absl::Status ReferenceBackend::PackFourBit(const FourBitMatrix& matrix, Weight* weight) {
  return reference::Pack(matrix, weight);
}

absl::Status ReferenceBackend::Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                                      Weight* weight) {
  return reference::PackRows(first_row, count, values, weight);
}

absl::Status ReferenceBackend::CopyToDevice(void* device, const void* host, int64_t bytes) {
  std::memcpy(device, host, static_cast<size_t>(bytes));
  return absl::OkStatus();
}

void ReferenceBackend::CopyToHost(void* host, const void* device, int64_t bytes) {
  std::memcpy(host, device, static_cast<size_t>(bytes));
}

void ReferenceBackend::DoMatMul(const Activations& x, std::span<const MatMulPart> parts) {
  for (const MatMulPart& part : parts) {
    if (part.weight->spec.format == WeightFormat::kInt8) {
      reference::MatMulInt8(x, part);
      continue;
    }
    const std::vector<float> weight = reference::Unpack(*part.weight);
    for (int64_t m = 0; m < x.rows; ++m) {
      for (int64_t n = 0; n < part.weight->spec.n; ++n) {
        const float* w = weight.data() + n * x.cols;
        double sum = part.bias ? Load(part.bias, n) : 0.0;
        for (int64_t k = 0; k < x.cols; ++k) {
          sum += static_cast<double>(x.Row(m)[k]) * static_cast<double>(w[k]);
        }
        float* out = part.out.Row(m) + n;
        *out = static_cast<float>(part.accumulate ? static_cast<double>(*out) + sum : sum);
      }
    }
  }
}

void ReferenceBackend::DoRmsNorm(const Activations& x, const VectorView& weight, float eps,
                                 const Activations& out) {
  for (int64_t m = 0; m < x.rows; ++m) {
    const std::vector<double> row = RowOf(x, m);
    std::vector<double> squares = row;
    for (double& value : squares) value *= value;
    const double divisor = std::sqrt(Mean(squares) + static_cast<double>(eps));
    for (int64_t c = 0; c < x.cols; ++c) {
      out.Row(m)[c] = static_cast<float>(row[static_cast<size_t>(c)] / divisor * Load(weight, c));
    }
  }
}

void ReferenceBackend::DoLayerNorm(const Activations& x, const Activations& residual,
                                   const VectorView& weight, const VectorView& bias, float eps,
                                   const Activations& out) {
  for (int64_t m = 0; m < x.rows; ++m) {
    std::vector<double> row = RowOf(x, m);
    for (int64_t c = 0; c < x.cols && residual.data != nullptr; ++c) {
      row[static_cast<size_t>(c)] += static_cast<double>(residual.Row(m)[c]);
    }
    const double mean = Mean(row);
    std::vector<double> squares = row;
    for (double& value : squares) value = (value - mean) * (value - mean);
    const double divisor = std::sqrt(Mean(squares) + static_cast<double>(eps));
    for (int64_t c = 0; c < x.cols; ++c) {
      const double normal = (row[static_cast<size_t>(c)] - mean) / divisor;
      const double shift = bias ? Load(bias, c) : 0.0;
      out.Row(m)[c] = static_cast<float>(normal * Load(weight, c) + shift);
    }
  }
}

void ReferenceBackend::DoEmbedding(const Weight& table, std::span<const int32_t> ids,
                                   bool accumulate, const Activations& out) {
  const std::vector<float> values = reference::Unpack(table);
  for (int64_t m = 0; m < out.rows; ++m) {
    const float* row = values.data() + ids[static_cast<size_t>(m)] * table.spec.k;
    for (int64_t c = 0; c < out.cols; ++c) {
      const auto value = static_cast<double>(row[c]);
      float* to = out.Row(m) + c;
      *to = static_cast<float>(accumulate ? static_cast<double>(*to) + value : value);
    }
  }
}

void ReferenceBackend::DoRopeAndStore(const Activations& q, const Activations& k,
                                      const Activations& v, std::span<const float> inv_freq,
                                      std::span<const SequenceRows> sequences, const KvCache& cache,
                                      int64_t layer) {
  reference::RopeAndStore(q, k, v, inv_freq, sequences, cache, layer);
}

void ReferenceBackend::DoPagedAttention(const Activations& q,
                                        std::span<const SequenceRows> sequences,
                                        const KvCache& cache, int64_t layer, float scale,
                                        const Activations& out) {
  reference::PagedAttention(q, sequences, cache, layer, scale, out);
}

void ReferenceBackend::DoEncoderAttention(const Activations& q, const Activations& k,
                                          const Activations& v,
                                          std::span<const SequenceRows> sequences,
                                          int64_t num_heads, float scale, const Activations& out) {
  reference::EncoderAttention(q, k, v, sequences, num_heads, scale, out);
}

void ReferenceBackend::DoSiluMul(const Activations& gate, const Activations& up,
                                 const Activations& out) {
  for (int64_t m = 0; m < gate.rows; ++m) {
    for (int64_t c = 0; c < gate.cols; ++c) {
      const auto g = static_cast<double>(gate.Row(m)[c]);
      const auto u = static_cast<double>(up.Row(m)[c]);
      out.Row(m)[c] = static_cast<float>(g / (1 + std::exp(-g)) * u);
    }
  }
}

void ReferenceBackend::DoGelu(const Activations& x, bool tanh_form) {
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t c = 0; c < x.cols; ++c) {
      float* value = x.Row(m) + c;
      *value = static_cast<float>(GeluOf(static_cast<double>(*value), tanh_form));
    }
  }
}

void ReferenceBackend::DoGatherRows(const Activations& x, std::span<const int32_t> rows,
                                    const Activations& out) {
  for (int64_t m = 0; m < out.rows; ++m) {
    std::copy_n(x.Row(rows[static_cast<size_t>(m)]), x.cols, out.Row(m));
  }
}

void ReferenceBackend::DoPool(const Activations& x, std::span<const SequenceRows> sequences,
                              Pooling pooling, bool normalize, const Activations& out) {
  for (int64_t s = 0; s < out.rows; ++s) {
    const std::vector<double> pooled = PoolRows(x, sequences[static_cast<size_t>(s)], pooling);
    double squares = 0;
    for (int64_t c = 0; c < out.cols; ++c) {
      squares += pooled[static_cast<size_t>(c)] * pooled[static_cast<size_t>(c)];
    }
    const double divisor = normalize && squares > 0 ? std::sqrt(squares) : 1.0;
    for (int64_t c = 0; c < out.cols; ++c) {
      out.Row(s)[c] = static_cast<float>(pooled[static_cast<size_t>(c)] / divisor);
    }
  }
}

void ReferenceBackend::DoSample(const Activations& logits, std::span<const SamplingPlan> plans,
                                std::span<SampledToken> sampled) {
  for (size_t i = 0; i < plans.size(); ++i) {
    const std::span<const float> row(logits.Row(plans[i].row), static_cast<size_t>(logits.cols));
    reference::SampleOne(row, plans[i], &sampled[i]);
  }
}

absl::StatusOr<std::unique_ptr<Backend>> MakeReferenceBackend() {
  return std::unique_ptr<Backend>(new ReferenceBackend());
}

}  // namespace nibble
