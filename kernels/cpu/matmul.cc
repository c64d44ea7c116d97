// A unit of work is one super panel of one part for some rows of x. Units of a part are ordered
// super panel first, so that a worker finds the codes of its last unit still in its cache.
#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "kernels/cpu/packing.h"

namespace nibble {
namespace {

constexpr int64_t kMinRows = 24;  // of a unit, when the rows are cut at all

int64_t NumSuperPanels(int64_t n) { return CeilDiv(NumPanels(n), PanelWidth(n)); }

// How many slices the rows are cut into: only as many as keep every thread busy.
int64_t RowSlices(int64_t rows, int64_t super_panels, int threads) {
  const int64_t wanted = CeilDiv(int64_t{4} * threads, super_panels);
  return std::clamp<int64_t>(wanted, 1, CeilDiv(rows, kMinRows));
}

void RunTask(const IsaTable& isa, const WeightSpec& spec, const MatMulTask& task) {
  switch (spec.format) {
    case WeightFormat::kNf4:
    case WeightFormat::kFp4:
      return GroupsStraddleRows(spec) ? isa.nf4_straddling(&task) : isa.nf4(&task);
    case WeightFormat::kInt8:
      return;
    case WeightFormat::kBf16:
      return isa.half(&task, kLaneBF16);
    case WeightFormat::kF16:
      return isa.half(&task, kLaneF16);
  }
}

// Rows [first, end) of x times one super panel of one part.
void RunUnit(const CpuContext& context, const Activations& x, const MatMulPart& part,
             int64_t super_panel, int64_t first, int64_t end) {
  MatMulTask task = {};
  DescribeSuperPanel(*part.weight, super_panel, &task);
  task.x = x.Row(first);
  task.x_stride = x.stride;
  task.rows = end - first;
  task.out = part.out.Row(first);
  task.out_stride = part.out.stride;
  task.bias = {part.bias.data, LaneTypeOf(part.bias.dtype)};
  task.accumulate = part.accumulate ? 1 : 0;
  task.map = DynamicMap().data();
  if (IsFourBit(part.weight->spec.format)) {
    task.codebook = CodebookOf(part.weight->spec.format).data();
  }
  RunTask(*context.isa, part.weight->spec, task);
}

}  // namespace

void CpuMatMul(const CpuContext& context, const Activations& x, std::span<const MatMulPart> parts) {
  int64_t super_panels = 0, outputs = 0;
  for (const MatMulPart& part : parts) {
    super_panels += NumSuperPanels(part.weight->spec.n);
    outputs += part.weight->spec.n;
  }
  const int64_t slices = RowSlices(x.rows, super_panels, context.pool->num_threads());
  context.Run(super_panels * slices, x.rows * outputs * x.cols, [&](int64_t unit, int) {
    int64_t super_panel = unit / slices;
    const int64_t slice = unit % slices;
    for (const MatMulPart& part : parts) {
      const int64_t of_part = NumSuperPanels(part.weight->spec.n);
      if (super_panel < of_part) {
        return RunUnit(context, x, part, super_panel, slice * x.rows / slices,
                       (slice + 1) * x.rows / slices);
      }
      super_panel -= of_part;
    }
  });
}

}  // namespace nibble
