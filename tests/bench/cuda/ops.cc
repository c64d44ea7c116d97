// Each operation as a contender of its own; inputs rotate where they are larger than L2 together.
#include "tests/bench/cuda/ops.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sampling.h"

namespace nibble::bench {
namespace {

struct LlamaShape {
  int64_t hidden = 4096;
  int64_t ffn = 14336;
  int64_t heads = 32;
  int64_t kv_heads = 8;
  int64_t head_dim = 128;
  int64_t vocab = 128256;
};

LlamaShape ShapeOf(bool rehearsal) {
  return rehearsal ? LlamaShape{64, 96, 4, 2, 16, 256} : LlamaShape{};
}

// One operation, timed and written as a row. `bytes` are those it must read and write.
template <typename Append>
void Measure(Machine* machine, const std::string& name, double bytes, double copy_bandwidth,
             Figures* figures, const Append& append) {
  const Contender operation = {name, [&](int turn, cuda::Stream* stream) {
                                 cuda::Tape tape;
                                 append(&tape, turn);
                                 return tape.Play(stream);
                               }};
  const absl::StatusOr<std::vector<Timing>> timing = machine->Race({&operation, 1});
  if (!timing.ok()) return figures->Missing(name, timing.status().ToString());
  const double us = (*timing)[0].median_us;
  figures->Write(Line("row", "operation")
                     .Add("what", name)
                     .Add("us", us)
                     .Add("min_us", (*timing)[0].min_us)
                     .Add("max_us", (*timing)[0].max_us)
                     .Add("of_copy_bandwidth", bytes / (us * 1e-6) / copy_bandwidth));
}

void MeasureRows(Machine* machine, const LlamaShape& shape, double copy_bandwidth,
                 Figures* figures) {
  for (const int64_t rows : machine->effort().rehearsal ? std::vector<int64_t>{1, 3}
                                                        : std::vector<int64_t>{1, 64, 2048}) {
    const size_t mark = machine->Mark();
    const Activations x = machine->RandomRows(rows, shape.hidden);
    const Activations y = machine->RandomRows(rows, shape.hidden);
    const Activations gate = machine->RandomRows(rows, shape.ffn);
    const Activations up = machine->RandomRows(rows, shape.ffn);
    const VectorView weight = {machine->RandomRows(1, shape.hidden).data, DType::kF32,
                               shape.hidden};
    const std::string at = absl::StrCat(", M=", rows);
    const double row_bytes = static_cast<double>(rows * shape.hidden) * 4;
    Measure(machine, "RMSNorm" + at, 2 * row_bytes, copy_bandwidth, figures,
            [&](cuda::Tape* tape, int) { cuda::RmsNorm(tape, x, weight, 1e-5f, y); });
    Measure(machine, "LayerNorm + residual" + at, 3 * row_bytes, copy_bandwidth, figures,
            [&](cuda::Tape* tape, int) { cuda::LayerNorm(tape, x, y, weight, weight, 1e-5f, y); });
    Measure(machine, "SiLU x up" + at, static_cast<double>(3 * rows * shape.ffn) * 4,
            copy_bandwidth, figures,
            [&](cuda::Tape* tape, int) { cuda::SiluMul(tape, gate, up, gate); });
    Measure(machine, "GELU" + at, static_cast<double>(2 * rows * shape.ffn) * 4, copy_bandwidth,
            figures, [&](cuda::Tape* tape, int) { cuda::Gelu(tape, up, false); });
    machine->Rewind(mark);
  }
}

// Sequences of `rows` new positions each, the last at `context`; pages lie one after the other.
struct Batch {
  cuda::DeviceSequences sequences;
  int64_t num_pages = 0;
};

Batch MakeBatch(Machine* machine, int64_t count, int64_t rows, int64_t context) {
  Batch batch;
  int32_t stride = 1;
  while (stride * kPageSlots < context) stride *= 2;
  std::vector<cuda::DeviceSequence> sequences;
  std::vector<cuda::RowPlace> places;
  std::vector<int32_t> pages(static_cast<size_t>(count) * static_cast<size_t>(stride), 0);
  for (int64_t s = 0; s < count; ++s) {
    const int64_t start = context - rows;
    sequences.push_back({static_cast<int32_t>(s * rows), static_cast<int32_t>(rows),
                         static_cast<int32_t>(start), 0});
    for (int64_t r = 0; r < rows; ++r) {
      places.push_back({static_cast<int32_t>(s), static_cast<int32_t>(start + r)});
    }
    for (int64_t page = 0; page * kPageSlots < context; ++page) {
      pages[static_cast<size_t>(s * stride + page)] = static_cast<int32_t>(batch.num_pages++);
    }
  }
  const auto upload = [&](const auto& values) {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    Value* const device = machine->Make<Value>(static_cast<int64_t>(values.size()));
    machine->Upload(device, values.data(), static_cast<int64_t>(values.size() * sizeof(Value)));
    return device;
  };
  batch.sequences = {upload(sequences),
                     upload(places),
                     upload(pages),
                     static_cast<int32_t>(count),
                     static_cast<int32_t>(count * rows),
                     stride,
                     static_cast<int32_t>(rows)};
  return batch;
}

void MeasureAttention(Machine* machine, const LlamaShape& shape, int64_t count, int64_t rows,
                      int64_t context, double copy_bandwidth, Figures* figures) {
  const size_t mark = machine->Mark();
  const Batch batch = MakeBatch(machine, count, rows, context);
  KvCache cache = {nullptr, DType::kBF16, 2, batch.num_pages, shape.kv_heads, shape.head_dim};
  cache.data = machine->Allocate(cache.Bytes());
  machine->Fill(cache.data, cache.Bytes(), Machine::Content::kHalves);
  const int64_t all = count * rows, width = shape.heads * shape.head_dim;
  const int64_t kv_width = shape.kv_heads * shape.head_dim;
  const Activations q = machine->RandomRows(all, width), out = machine->RandomRows(all, width);
  const Activations k = machine->RandomRows(all, kv_width), v = machine->RandomRows(all, kv_width);
  const float* const inv_freq = machine->RandomRows(1, shape.head_dim).data;
  cuda::AttentionSetup setup;
  setup.max_context = context;
  setup.scratch = machine->AllocateZeroed(
      cuda::AttentionScratchBytes(all, context, shape.heads, shape.head_dim));
  const std::string at = absl::StrCat(", ", count, " x ", rows, " rows at context ", context);
  const double cache_bytes = static_cast<double>(cache.LayerPageBytes() * cache.num_pages);
  const double row_bytes = static_cast<double>(all * width) * 4;
  Measure(machine, "attention" + at, cache_bytes + 2 * row_bytes, copy_bandwidth, figures,
          [&](cuda::Tape* tape, int turn) {
            cuda::PagedAttention(tape, setup, q, batch.sequences, cache, turn % 2, 0.1f, out);
          });
  const double rope_bytes = 2 * row_bytes + static_cast<double>(all * kv_width) * (3 * 4 + 2 * 2);
  Measure(machine, "RoPE and KV store" + at, rope_bytes, copy_bandwidth, figures,
          [&](cuda::Tape* tape, int turn) {
            cuda::RopeAndStore(tape, q, k, v, inv_freq, batch.sequences, cache, turn % 2);
          });
  machine->Rewind(mark);
}

void MeasureSampling(Machine* machine, const LlamaShape& shape, int64_t rows, bool greedy,
                     double copy_bandwidth, Figures* figures) {
  const size_t mark = machine->Mark();
  const Activations logits = machine->RandomRows(rows, shape.vocab);
  std::vector<cuda::DevicePlan> plans(static_cast<size_t>(rows));
  for (size_t i = 0; i < plans.size(); ++i) {
    plans[i] = {};
    plans[i].row = static_cast<int32_t>(i);
    plans[i].seed = i;
    plans[i].temperature = greedy ? 0.0f : 0.8f;
    plans[i].top_k = greedy ? 0 : 40;
    plans[i].top_p = greedy ? 1.0f : 0.95f;
    plans[i].repetition_penalty = 1;
    plans[i].num_logprobs = -1;
    plans[i].forced_token = -1;
  }
  cuda::DevicePlan* const on_device = machine->Make<cuda::DevicePlan>(rows);
  machine->Upload(on_device, plans.data(), rows * static_cast<int64_t>(sizeof(cuda::DevicePlan)));
  cuda::SamplingTask task;
  task.plans = on_device;
  task.sampled = machine->Make<TokenLogprob>(rows);
  task.num_plans = static_cast<int32_t>(rows);
  char* const scratch = machine->AllocateZeroed(cuda::SamplingScratchBytes(rows, shape.vocab));
  Measure(machine, absl::StrCat(greedy ? "greedy" : "top-k 40, top-p 0.95", ", ", rows, " rows"),
          static_cast<double>(rows * shape.vocab) * 4, copy_bandwidth, figures,
          [&](cuda::Tape* tape, int) { cuda::Sample(tape, logits, task, scratch); });
  machine->Rewind(mark);
}

}  // namespace

void MeasureOps(Machine* machine, double copy_bandwidth, Figures* figures) {
  const bool rehearsal = machine->effort().rehearsal;
  const LlamaShape shape = ShapeOf(rehearsal);
  MeasureRows(machine, shape, copy_bandwidth, figures);
  struct Case {
    int64_t count, rows, context;
  };
  const std::vector<Case> cases =
      rehearsal ? std::vector<Case>{{1, 1, 20}, {2, 17, 33}}
                : std::vector<Case>{{1, 1, 1024},   {1, 1, 32768},   {64, 1, 1024},
                                    {256, 1, 1024}, {1, 2048, 2048}, {4, 512, 8192}};
  for (const Case& c : cases) {
    MeasureAttention(machine, shape, c.count, c.rows, c.context, copy_bandwidth, figures);
  }
  for (const int64_t rows :
       rehearsal ? std::vector<int64_t>{2} : std::vector<int64_t>{1, 64, 256}) {
    MeasureSampling(machine, shape, rows, true, copy_bandwidth, figures);
    MeasureSampling(machine, shape, rows, false, copy_bandwidth, figures);
  }
}

}  // namespace nibble::bench
