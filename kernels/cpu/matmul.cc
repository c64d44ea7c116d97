// A unit of work is one super panel of one part for some rows of x. Units of a part are ordered
// super panel first, so that a worker finds the codes of its last unit still in its cache. INT8
// parts share one pass before them, which turns x into 8-bit codes in scratch memory; in the bf16
// mode so do the parts that multiply in bf16.
#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "kernels/cpu/packing.h"

namespace nibble {
namespace {

constexpr int64_t kMinRows = 24;  // of a unit, when the rows are cut at all

int64_t NumSuperPanels(int64_t n) { return CeilDiv(NumPanels(n), PanelWidth(n)); }

// How many slices the rows are cut into: only as many as keep every thread busy.
int64_t RowSlices(int64_t rows, int64_t super_panels, int threads) {
  const int64_t wanted = CeilDiv(int64_t{4} * threads, std::max<int64_t>(super_panels, 1));
  return std::clamp<int64_t>(wanted, 1, CeilDiv(rows, kMinRows));
}

// What the bf16 mode multiplies in bf16: groups that straddle rows and fp16 weights, which bf16
// would round, stay in fp32.
bool TakesBf16(const WeightSpec& spec) {
  return spec.format == WeightFormat::kBf16 ||
         (IsFourBit(spec.format) && !GroupsStraddleRows(spec));
}

void RunBf16Task(const IsaTable& isa, const WeightSpec& spec, const MatMulTask& task) {
  return IsFourBit(spec.format) ? isa.four_bit_bf16(&task) : isa.half_bf16(&task);
}

void RunTask(const IsaTable& isa, const WeightSpec& spec, const MatMulTask& task) {
  if (task.bf16.pairs != nullptr) return RunBf16Task(isa, spec, task);
  switch (spec.format) {
    case WeightFormat::kNf4:
    case WeightFormat::kFp4:
      return GroupsStraddleRows(spec) ? isa.four_bit_straddling(&task) : isa.four_bit(&task);
    case WeightFormat::kInt8:
      return isa.int8(&task);
    case WeightFormat::kBf16:
      return isa.half(&task, kLaneBF16);
    case WeightFormat::kF16:
      return isa.half(&task, kLaneF16);
  }
}

// Where the 8-bit rows of x lie in scratch memory: stats and counts, codes, outliers.
struct Int8Place {
  int64_t codes, outliers, bytes;
};
Int8Place PlaceInt8(int64_t rows, int64_t k) {
  const int64_t stride = Int8Stride(k);
  const int64_t codes = AlignScratch(rows * 8);
  const int64_t outliers = codes + AlignScratch(rows * stride * 2);
  return {codes, outliers, outliers + AlignScratch(rows * stride / 8)};
}

int64_t Bf16Bytes(int64_t rows, int64_t k) { return AlignScratch(rows * Bf16Stride(k) * 4); }

// The rows of x in bf16, if the mode and any part want them. In scratch memory behind those in 8
// bits.
Bf16Rows MakeBf16Rows(const CpuContext& context, const Activations& x,
                      std::span<const MatMulPart> parts, int64_t int8_bytes) {
  constexpr int64_t kInputWork = 2;  // of one value
  const auto takes_bf16 = [](const MatMulPart& part) { return TakesBf16(part.weight->spec); };
  if (context.compute != Compute::kBf16 || std::none_of(parts.begin(), parts.end(), takes_bf16)) return {};
  char* scratch = context.Scratch(int8_bytes + Bf16Bytes(x.rows, x.cols)) + int8_bytes;
  const Bf16Rows rows = {reinterpret_cast<uint32_t*>(scratch), Bf16Stride(x.cols)};
  context.RunRows(x.rows, x.cols * kInputWork,
                  [&](int64_t row) { context.isa->bf16_input(x.Row(row), x.cols, row, &rows); });
  return rows;
}

// The rows of x in 8 bits, if any part wants them.
Int8Rows MakeInt8Rows(const CpuContext& context, const Activations& x,
                      std::span<const MatMulPart> parts) {
  constexpr int64_t kInputWork = 6;  // of one value
  const auto is_int8 = [](const MatMulPart& part) {
    return part.weight->spec.format == WeightFormat::kInt8;
  };
  const auto part = std::find_if(parts.begin(), parts.end(), is_int8);
  if (part == parts.end()) return {};
  const Int8Place place = PlaceInt8(x.rows, x.cols);
  char* scratch = context.Scratch(place.bytes);
  float* stats = reinterpret_cast<float*>(scratch);
  const Int8Rows rows = {reinterpret_cast<int16_t*>(scratch + place.codes),
                         reinterpret_cast<uint64_t*>(scratch + place.outliers), stats,
                         reinterpret_cast<int32_t*>(stats + x.rows), Int8Stride(x.cols)};
  const float threshold = part->weight->spec.outlier_threshold;
  context.RunRows(x.rows, x.cols * kInputWork, [&](int64_t row) {
    context.isa->int8_input(x.Row(row), x.cols, threshold, row, &rows);
  });
  return rows;
}

// The same from row `first` on.
Int8Rows RowsFrom(const Int8Rows& rows, int64_t first) {
  if (rows.codes == nullptr) return {};
  return {rows.codes + first * rows.stride, rows.outliers + first * (rows.stride / kMaskBits),
          rows.stats + first, rows.counts + first, rows.stride};
}

// x in every form that some part multiplies.
struct Inputs {
  Activations x;
  Int8Rows int8;
  Bf16Rows bf16;
};

Inputs PrepareInputs(const CpuContext& context, const Activations& x,
                     std::span<const MatMulPart> parts) {
  const Int8Rows int8 = MakeInt8Rows(context, x, parts);
  const int64_t int8_bytes = int8.codes == nullptr ? 0 : PlaceInt8(x.rows, x.cols).bytes;
  return {x, int8, MakeBf16Rows(context, x, parts, int8_bytes)};
}

// Rows [first, end) of x times one super panel of one part.
void RunUnit(const CpuContext& context, const Inputs& inputs, const MatMulPart& part,
             int64_t super_panel, int64_t first, int64_t end) {
  MatMulTask task = {};
  DescribeSuperPanel(*part.weight, super_panel, &task);
  task.x = inputs.x.Row(first);
  task.x_stride = inputs.x.stride;
  task.rows = end - first;
  task.out = part.out.Row(first);
  task.out_stride = part.out.stride;
  task.bias = {part.bias.data, LaneTypeOf(part.bias.dtype)};
  task.accumulate = part.accumulate ? 1 : 0;
  task.int8 = RowsFrom(inputs.int8, first);
  if (inputs.bf16.pairs != nullptr && TakesBf16(part.weight->spec)) {
    task.bf16 = {inputs.bf16.pairs + first * inputs.bf16.stride, inputs.bf16.stride};
  }
  RunTask(*context.isa, part.weight->spec, task);
}

}  // namespace

int64_t MatMulScratchBytes(const BackendLimits& limits, Compute compute) {
  return (limits.int8 ? PlaceInt8(limits.max_rows, limits.max_k).bytes : 0) +
         (compute == Compute::kBf16 ? Bf16Bytes(limits.max_rows, limits.max_k) : 0);
}

void CpuMatMul(const CpuContext& context, const Activations& x, std::span<const MatMulPart> parts) {
  int64_t super_panels = 0, outputs = 0;
  for (const MatMulPart& part : parts) {
    super_panels += NumSuperPanels(part.weight->spec.n);
    outputs += part.weight->spec.n;
  }
  const Inputs inputs = PrepareInputs(context, x, parts);
  const int64_t slices = RowSlices(x.rows, super_panels, context.pool->num_threads());
  context.Run(super_panels * slices, x.rows * outputs * x.cols, [&](int64_t unit, int) {
    int64_t super_panel = unit / slices;
    const int64_t slice = unit % slices;
    for (const MatMulPart& part : parts) {
      const int64_t of_part = NumSuperPanels(part.weight->spec.n);
      if (super_panel < of_part) {
        return RunUnit(context, inputs, part, super_panel, slice * x.rows / slices,
                       (slice + 1) * x.rows / slices);
      }
      super_panel -= of_part;
    }
  });
}

}  // namespace nibble
