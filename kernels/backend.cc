// The checks that stand before every operation on every device, and the choice of a device. A wrong
// shape is our own bug: it aborts with the operation, the quantity, got and wanted.
#include "kernels/backend.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

[[noreturn]] void Fail(const char* op, const char* what, int64_t got, const char* relation,
                       int64_t wanted) {
  std::fprintf(stderr, "%s: %s is %lld, want %s%lld\n", op, what, static_cast<long long>(got),
               relation, static_cast<long long>(wanted));
  std::abort();
}

// Without a branch for each: every layer of a long batch asks.
bool PagesAreWithin(const int32_t* pages, int64_t count, int64_t num_pages) {
  const auto last = static_cast<uint32_t>(num_pages - 1);
  uint32_t outside = 0;  // its highest bit
  for (int64_t i = 0; i < count; ++i) {
    const auto page = static_cast<uint32_t>(pages[i]);
    outside |= page | (last - page);
  }
  return num_pages > 0 && (outside >> 31) == 0;
}

// The checks of one operation, by its name.
struct Check {
  const char* op;

  void Equal(const char* what, int64_t got, int64_t wanted) const {
    if (got != wanted) Fail(op, what, got, "", wanted);
  }
  void AtLeast(const char* what, int64_t got, int64_t wanted) const {
    if (got < wanted) Fail(op, what, got, ">= ", wanted);
  }
  void AtMost(const char* what, int64_t got, int64_t wanted) const {
    if (got > wanted) Fail(op, what, got, "<= ", wanted);
  }
  void True(const char* what, bool holds) const {
    if (!holds) Fail(op, what, 0, "", 1);
  }
  void Index(const char* what, int64_t got, int64_t size) const {
    AtLeast(what, got, 0);
    AtMost(what, got, size - 1);
  }

  void Tensor(const char* what, const Activations& x) const {
    AtLeast(what, x.rows, 0);
    AtLeast(what, x.cols, 1);
    True(what, x.data != nullptr || x.rows == 0);
    if (x.rows > 1) AtLeast(what, x.stride, x.cols);
  }
  void SameShape(const char* what, const Activations& x, const Activations& like) const {
    Tensor(what, x);
    Equal(what, x.rows, like.rows);
    Equal(what, x.cols, like.cols);
  }
  void Sequences(std::span<const SequenceRows> sequences, int64_t rows) const {
    for (const SequenceRows& sequence : sequences) {
      AtLeast("a sequence's num_rows", sequence.num_rows, 1);
      AtLeast("a sequence's first_row", sequence.first_row, 0);
      AtLeast("a sequence's start", sequence.start, 0);
      AtMost("a sequence's end row", sequence.first_row + sequence.num_rows, rows);
    }
  }
  void Packed(const Weight& weight) const {
    const WeightSpec& spec = weight.spec;
    True("a weight's codes", weight.codes != nullptr);
    if (IsSixteenBit(spec.format)) return;
    True("a weight's scales", weight.scales != nullptr);
    if (!IsFourBit(spec.format)) return;
    True("group_size is allowed", IsAllowedGroupSize(spec.group_size));
    True("a weight's nested scales", !spec.double_quant || weight.nested != nullptr);
    True("a weight's tables", !spec.own_tables || weight.tables != nullptr);
  }
  void Cache(const KvCache& cache, std::span<const SequenceRows> sequences, int64_t layer) const {
    True("the cache's data", cache.data != nullptr);
    AtLeast("head_dim", cache.head_dim, 2);
    Equal("head_dim % 2", cache.head_dim % 2, 0);
    AtLeast("num_kv_heads", cache.num_kv_heads, 1);
    Index("layer", layer, cache.num_layers);
    for (const SequenceRows& sequence : sequences) {
      True("a sequence's page table", sequence.pages != nullptr);
      const int64_t count = (sequence.start + sequence.num_rows - 1) / kPageSlots + 1;
      if (PagesAreWithin(sequence.pages, count, cache.num_pages)) continue;
      for (int64_t i = 0; i < count; ++i) Index("a page", sequence.pages[i], cache.num_pages);
    }
  }
};

}  // namespace

void Backend::MatMul(const Activations& x, std::span<const MatMulPart> parts) {
  const Check check = {"MatMul"};
  check.Tensor("x", x);
  const Weight* int8 = nullptr;
  for (const MatMulPart& part : parts) {
    check.True("a part's weight", part.weight != nullptr);
    check.Packed(*part.weight);
    const WeightSpec& spec = part.weight->spec;
    check.Equal("x's columns", x.cols, spec.k);
    check.Tensor("out", part.out);
    check.Equal("out's rows", part.out.rows, x.rows);
    check.Equal("out's columns", part.out.cols, spec.n);
    if (part.bias) check.Equal("bias's length", part.bias.length, spec.n);
    if (spec.format != WeightFormat::kInt8) continue;
    if (int8 == nullptr) int8 = part.weight;
    check.True("one outlier_threshold for all INT8 parts",
               spec.outlier_threshold == int8->spec.outlier_threshold);
  }
  if (x.rows > 0 && !parts.empty()) DoMatMul(x, parts);
}

void Backend::RmsNorm(const Activations& x, const VectorView& weight, float eps,
                      const Activations& out) {
  const Check check = {"RmsNorm"};
  check.Tensor("x", x);
  check.SameShape("out", out, x);
  check.True("weight", static_cast<bool>(weight));
  check.Equal("weight's length", weight.length, x.cols);
  if (x.rows > 0) DoRmsNorm(x, weight, eps, out);
}

void Backend::LayerNorm(const Activations& x, const Activations& residual, const VectorView& weight,
                        const VectorView& bias, float eps, const Activations& out) {
  const Check check = {"LayerNorm"};
  check.Tensor("x", x);
  check.SameShape("out", out, x);
  if (residual.data != nullptr) check.SameShape("residual", residual, x);
  check.True("weight", static_cast<bool>(weight));
  check.Equal("weight's length", weight.length, x.cols);
  if (bias) check.Equal("bias's length", bias.length, x.cols);
  if (x.rows > 0) DoLayerNorm(x, residual, weight, bias, eps, out);
}

void Backend::Embedding(const Weight& table, std::span<const int32_t> ids, bool accumulate,
                        const Activations& out) {
  const Check check = {"Embedding"};
  check.Packed(table);
  check.Tensor("out", out);
  check.Equal("out's rows", out.rows, static_cast<int64_t>(ids.size()));
  check.Equal("out's columns", out.cols, table.spec.k);
  for (const int32_t id : ids) check.Index("an id", id, table.spec.n);
  if (out.rows > 0) DoEmbedding(table, ids, accumulate, out);
}

void Backend::RopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                           std::span<const float> inv_freq, std::span<const SequenceRows> sequences,
                           const KvCache& cache, int64_t layer) {
  const Check check = {"RopeAndStore"};
  check.Tensor("q", q);
  check.Tensor("k", k);
  check.SameShape("v", v, k);
  check.Equal("k's rows", k.rows, q.rows);
  check.Sequences(sequences, q.rows);
  check.Cache(cache, sequences, layer);
  check.Equal("q's columns % head_dim", q.cols % cache.head_dim, 0);
  check.Equal("k's columns", k.cols, cache.num_kv_heads * cache.head_dim);
  check.Equal("inv_freq's length", static_cast<int64_t>(inv_freq.size()), cache.head_dim / 2);
  if (!sequences.empty()) DoRopeAndStore(q, k, v, inv_freq, sequences, cache, layer);
}

void Backend::PagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                             const KvCache& cache, int64_t layer, float scale,
                             const Activations& out) {
  const Check check = {"PagedAttention"};
  check.Tensor("q", q);
  check.SameShape("out", out, q);
  check.Sequences(sequences, q.rows);
  check.Cache(cache, sequences, layer);
  check.Equal("q's columns % (KV heads · head_dim)", q.cols % (cache.num_kv_heads * cache.head_dim),
              0);
  if (!sequences.empty()) DoPagedAttention(q, sequences, cache, layer, scale, out);
}

void Backend::EncoderAttention(const Activations& q, const Activations& k, const Activations& v,
                               std::span<const SequenceRows> sequences, int64_t num_heads,
                               float scale, const Activations& out) {
  const Check check = {"EncoderAttention"};
  check.Tensor("q", q);
  check.SameShape("k", k, q);
  check.SameShape("v", v, q);
  check.SameShape("out", out, q);
  check.Sequences(sequences, q.rows);
  check.AtLeast("num_heads", num_heads, 1);
  check.Equal("q's columns % num_heads", q.cols % num_heads, 0);
  if (!sequences.empty()) DoEncoderAttention(q, k, v, sequences, num_heads, scale, out);
}

void Backend::SiluMul(const Activations& gate, const Activations& up, const Activations& out) {
  const Check check = {"SiluMul"};
  check.Tensor("gate", gate);
  check.SameShape("up", up, gate);
  check.SameShape("out", out, gate);
  if (gate.rows > 0) DoSiluMul(gate, up, out);
}

void Backend::Gelu(const Activations& x, bool tanh_form) {
  const Check check = {"Gelu"};
  check.Tensor("x", x);
  if (x.rows > 0) DoGelu(x, tanh_form);
}

void Backend::GatherRows(const Activations& x, std::span<const int32_t> rows,
                         const Activations& out) {
  const Check check = {"GatherRows"};
  check.Tensor("x", x);
  check.Tensor("out", out);
  check.Equal("out's rows", out.rows, static_cast<int64_t>(rows.size()));
  check.Equal("out's columns", out.cols, x.cols);
  for (const int32_t row : rows) check.Index("a row", row, x.rows);
  if (out.rows > 0) DoGatherRows(x, rows, out);
}

void Backend::Pool(const Activations& x, std::span<const SequenceRows> sequences, Pooling pooling,
                   bool normalize, const Activations& out) {
  const Check check = {"Pool"};
  check.Tensor("x", x);
  check.Tensor("out", out);
  check.Equal("out's rows", out.rows, static_cast<int64_t>(sequences.size()));
  check.AtMost("out's columns", out.cols, x.cols);
  check.Sequences(sequences, x.rows);
  if (out.rows > 0) DoPool(x, sequences, pooling, normalize, out);
}

void Backend::Sample(const Activations& logits, std::span<const SamplingPlan> plans,
                     std::span<SampledToken> sampled) {
  const Check check = {"Sample"};
  check.Tensor("logits", logits);
  check.Equal("sampled tokens", static_cast<int64_t>(sampled.size()),
              static_cast<int64_t>(plans.size()));
  for (const SamplingPlan& plan : plans) {
    check.Index("a plan's row", plan.row, logits.rows);
    check.AtMost("a forced token", plan.forced_token, logits.cols - 1);
  }
  if (!plans.empty()) DoSample(logits, plans, sampled);
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const BackendOptions& options) {
  if (options.device == "cpu") return MakeCpuBackend(options);
  if (options.device.starts_with("cuda:")) return MakeCudaBackend(options);
  if (options.device == "auto") {
    BackendOptions first_gpu = options;
    first_gpu.device = "cuda:0";
    absl::StatusOr<std::unique_ptr<Backend>> gpu = MakeCudaBackend(first_gpu);
    if (gpu.ok() || !absl::IsUnavailable(gpu.status())) return gpu;
    return MakeCpuBackend(options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device: got \"", options.device, "\", want auto, cpu or cuda:<number>"));
}

}  // namespace nibble
