// A unit of work is one super panel of one part for some rows of x. With few rows the threads share
// the super panels, each to be read from memory once; with many they share the rows, which then
// stay in the cache of the thread that wrote them and will read the results. Parts that multiply x
// in another form than fp32 share one pass before them, which writes it into scratch memory.
#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "kernels/cpu/packing.h"

namespace nibble {
namespace {

int64_t NumSuperPanels(int64_t n) { return CeilDiv(NumPanels(n), PanelWidth(n)); }

// How a product is cut into units, numbered super panel by super panel or slice by slice.
struct Cut {
  int64_t super_panels = 0;  // of all parts
  int64_t slices = 1;        // of the rows
  bool slice_first = false;

  int64_t NumUnits() const { return super_panels * slices; }
  int64_t SliceOf(int64_t unit) const { return slice_first ? unit / super_panels : unit % slices; }
  int64_t SuperPanelOf(int64_t unit) const {
    return slice_first ? unit % super_panels : unit / slices;
  }
};

Cut CutProduct(int64_t rows, int64_t super_panels, int threads) {
  constexpr int64_t kSharedRows = 64;  // of each thread, when the threads share the rows
  constexpr int64_t kSliceRows = 128;  // at most, then
  constexpr int64_t kMinRows = 24;     // of a slice otherwise
  constexpr int64_t kUnitsOfThread = 4;
  if (rows >= kSharedRows * threads) {
    return {super_panels, threads * CeilDiv(rows, threads * kSliceRows), true};
  }
  const int64_t wanted = CeilDiv(kUnitsOfThread * threads, std::max<int64_t>(super_panels, 1));
  return {super_panels, std::clamp<int64_t>(wanted, 1, CeilDiv(rows, kMinRows)), false};
}

// In which arithmetic a matrix is multiplied. Groups that straddle rows and fp16 weights, which
// bf16 would round, are multiplied in fp32 in every mode.
enum class Arithmetic { kFp32, kBf16, kBytes, kInt8 };

Arithmetic ArithmeticOf(const WeightSpec& spec, Compute compute) {
  if (spec.format == WeightFormat::kInt8) return Arithmetic::kInt8;
  if (compute == Compute::kFp32 || spec.format == WeightFormat::kF16) return Arithmetic::kFp32;
  if (spec.format == WeightFormat::kBf16) return Arithmetic::kBf16;
  if (GroupsStraddleRows(spec)) return Arithmetic::kFp32;
  return compute == Compute::kInt8 ? Arithmetic::kBytes : Arithmetic::kBf16;
}

void RunFp32Task(const IsaTable& isa, const WeightSpec& spec, const MatMulTask& task) {
  if (!IsFourBit(spec.format)) {
    return isa.half(&task, spec.format == WeightFormat::kBf16 ? kLaneBF16 : kLaneF16);
  }
  return GroupsStraddleRows(spec) ? isa.four_bit_straddling(&task) : isa.four_bit(&task);
}

void RunTask(const IsaTable& isa, const WeightSpec& spec, Arithmetic arithmetic,
             const MatMulTask& task) {
  switch (arithmetic) {
    case Arithmetic::kFp32:
      return RunFp32Task(isa, spec, task);
    case Arithmetic::kBf16:
      return IsFourBit(spec.format) ? isa.four_bit_bf16(&task) : isa.half_bf16(&task);
    case Arithmetic::kBytes:
      return isa.four_bit_int8(&task);
    case Arithmetic::kInt8:
      return isa.int8(&task);
  }
}

// Gives out the context's scratch memory piece by piece.
class ScratchPieces {
 public:
  explicit ScratchPieces(const CpuContext& context) : context_(context) {}
  template <typename T>
  T* Take(int64_t count) {
    const int64_t begin = used_;
    used_ += AlignScratch(count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(context_.Scratch(used_) + begin);
  }

 private:
  const CpuContext& context_;
  int64_t used_ = 0;
};

int64_t Int8Bytes(int64_t rows, int64_t k) {
  const int64_t stride = Int8Stride(k);
  return AlignScratch(rows * stride * 2) + AlignScratch(rows * stride / 8) +
         2 * AlignScratch(rows * 4);
}

int64_t Bf16Bytes(int64_t rows, int64_t k) { return AlignScratch(rows * Bf16Stride(k) * 4); }

int64_t ByteRowsBytes(int64_t rows, int64_t k, int64_t block) {
  const int64_t stride = ByteStride(k);
  return AlignScratch(rows * stride) + 2 * AlignScratch(rows * (stride / block) * 4);
}

// Work of one value, in arithmetic operations, when rows of x change their form.
constexpr int64_t kInt8InputWork = 6, kBf16InputWork = 2, kByteInputWork = 3;

Int8Rows MakeInt8Rows(const CpuContext& context, const Activations& x, float threshold,
                      ScratchPieces* scratch) {
  const int64_t stride = Int8Stride(x.cols);
  Int8Rows rows = {};
  rows.codes = scratch->Take<int16_t>(x.rows * stride);
  rows.outliers = scratch->Take<uint64_t>(x.rows * (stride / kMaskBits));
  rows.stats = scratch->Take<float>(x.rows);
  rows.counts = scratch->Take<int32_t>(x.rows);
  rows.stride = stride;
  context.RunRows(x.rows, x.cols * kInt8InputWork, [&](int64_t row) {
    context.isa->int8_input(x.Row(row), x.cols, threshold, row, &rows);
  });
  return rows;
}

Bf16Rows MakeBf16Rows(const CpuContext& context, const Activations& x, ScratchPieces* scratch) {
  const int64_t stride = Bf16Stride(x.cols);
  const Bf16Rows rows = {scratch->Take<uint32_t>(x.rows * stride), stride};
  context.RunRows(x.rows, x.cols * kBf16InputWork,
                  [&](int64_t row) { context.isa->bf16_input(x.Row(row), x.cols, row, &rows); });
  return rows;
}

ByteRows MakeByteRows(const CpuContext& context, const Activations& x, int64_t block,
                      ScratchPieces* scratch) {
  const int64_t stride = ByteStride(x.cols);
  ByteRows rows = {};
  rows.codes = scratch->Take<int8_t>(x.rows * stride);
  rows.scales = scratch->Take<float>(x.rows * (stride / block));
  rows.sums = scratch->Take<int32_t>(x.rows * (stride / block));
  rows.stride = stride;
  rows.block = block;
  context.RunRows(x.rows, x.cols * kByteInputWork,
                  [&](int64_t row) { context.isa->byte_input(x.Row(row), x.cols, row, &rows); });
  return rows;
}

// The same from row `first` on.
Int8Rows RowsFrom(const Int8Rows& rows, int64_t first) {
  return {rows.codes + first * rows.stride, rows.outliers + first * (rows.stride / kMaskBits),
          rows.stats + first, rows.counts + first, rows.stride};
}
Bf16Rows RowsFrom(const Bf16Rows& rows, int64_t first) {
  return {rows.pairs + first * rows.stride, rows.stride};
}
ByteRows RowsFrom(const ByteRows& rows, int64_t first) {
  const int64_t blocks = rows.stride / rows.block;
  return {rows.codes + first * rows.stride, rows.scales + first * blocks,
          rows.sums + first * blocks, rows.stride, rows.block};
}

// x in every form that some part multiplies; the others are null.
struct Inputs {
  Activations x;
  Int8Rows int8 = {};
  Bf16Rows bf16 = {};
  ByteRows bytes = {}, short_bytes = {};  // in blocks of 64, and of 32
};

bool HasShortBlocks(const WeightSpec& spec) { return spec.group_size < kByteBlock; }

Inputs PrepareInputs(const CpuContext& context, const Activations& x,
                     std::span<const MatMulPart> parts) {
  ScratchPieces scratch(context);
  Inputs inputs = {x};
  for (const MatMulPart& part : parts) {
    const WeightSpec& spec = part.weight->spec;
    const Arithmetic arithmetic = ArithmeticOf(spec, context.compute);
    if (arithmetic == Arithmetic::kInt8 && inputs.int8.codes == nullptr) {
      inputs.int8 = MakeInt8Rows(context, x, spec.outlier_threshold, &scratch);
    } else if (arithmetic == Arithmetic::kBf16 && inputs.bf16.pairs == nullptr) {
      inputs.bf16 = MakeBf16Rows(context, x, &scratch);
    } else if (arithmetic == Arithmetic::kBytes) {
      const bool is_short = HasShortBlocks(spec);
      ByteRows* rows = is_short ? &inputs.short_bytes : &inputs.bytes;
      const int64_t block = is_short ? kShortByteBlock : kByteBlock;
      if (rows->codes == nullptr) *rows = MakeByteRows(context, x, block, &scratch);
    }
  }
  return inputs;
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
  const WeightSpec& spec = part.weight->spec;
  const Arithmetic arithmetic = ArithmeticOf(spec, context.compute);
  if (arithmetic == Arithmetic::kInt8) task.int8 = RowsFrom(inputs.int8, first);
  if (arithmetic == Arithmetic::kBf16) task.bf16 = RowsFrom(inputs.bf16, first);
  if (arithmetic == Arithmetic::kBytes) {
    task.bytes = RowsFrom(HasShortBlocks(spec) ? inputs.short_bytes : inputs.bytes, first);
  }
  RunTask(*context.isa, spec, arithmetic, task);
}

}  // namespace

int64_t MatMulScratchBytes(const BackendLimits& limits, Compute compute) {
  const int64_t rows = limits.max_rows, k = limits.max_k;
  int64_t bytes = limits.int8 ? Int8Bytes(rows, k) : 0;
  if (compute != Compute::kFp32) bytes += Bf16Bytes(rows, k);
  if (compute == Compute::kInt8) {
    bytes += ByteRowsBytes(rows, k, kByteBlock) + ByteRowsBytes(rows, k, kShortByteBlock);
  }
  return bytes;
}

void CpuMatMul(const CpuContext& context, const Activations& x, std::span<const MatMulPart> parts) {
  int64_t super_panels = 0, outputs = 0;
  for (const MatMulPart& part : parts) {
    super_panels += NumSuperPanels(part.weight->spec.n);
    outputs += part.weight->spec.n;
  }
  const Inputs inputs = PrepareInputs(context, x, parts);
  const Cut cut = CutProduct(x.rows, super_panels, context.pool->num_threads());
  context.Run(cut.NumUnits(), x.rows * outputs * x.cols, [&](int64_t unit, int) {
    int64_t super_panel = cut.SuperPanelOf(unit);
    const int64_t first = cut.SliceOf(unit) * x.rows / cut.slices;
    const int64_t end = (cut.SliceOf(unit) + 1) * x.rows / cut.slices;
    for (const MatMulPart& part : parts) {
      const int64_t of_part = NumSuperPanels(part.weight->spec.n);
      if (super_panel < of_part) {
        return RunUnit(context, inputs, part, super_panel, first, end);
      }
      super_panel -= of_part;
    }
  });
}

}  // namespace nibble
