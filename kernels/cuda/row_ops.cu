// Activations, look-ups and pooling: each thread makes four neighbouring values. Knows no norm of a
// model's layers (norms.cu).
#include "cuda_machine.h"
#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/four_bit_pack.h"
#include "kernels/cuda/four_bit_values.inl"
#include "kernels/cuda/polynomials.h"
#include "kernels/cuda/row_access.h"
#include "kernels/cuda/row_ops.h"

namespace nibble::cuda {
namespace {

constexpr uint32_t kThreads = 128;
// Of a block that adds up rows: 32 threads for 128 columns, times so many rows at once.
constexpr uint32_t kRowsAtOnce = 16;
constexpr int64_t kPoolColumns = kFour * kWarp;

// --- where a thread stands in [rows, cols] ---

struct Place {
  int64_t row;
  int64_t column;  // of the first of its four values
};

__device__ __forceinline__ Place PlaceOfThread() {
  return {static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y,
          kFour * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x)};
}

// Threads along a row, enough rows of them for a block.
Dim3 BlockFor(int64_t cols) {
  uint32_t threads = kWarp;
  while (threads < kThreads && threads * kFour < cols) threads *= 2;
  return {threads, kThreads / threads};
}
Dim3 GridFor(const Dim3& block, int64_t rows, int64_t cols) {
  return {CeilDiv(rows, block.y), CeilDiv(cols, kFour * block.x)};
}

// --- activations ---

// gate / (1 + e^-gate) · up.
__global__ void SiluMulKernel(DeviceRows gate, DeviceRows up, DeviceRows out, int64_t rows,
                              int64_t cols) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const Place at = PlaceOfThread();
  if (at.row >= rows || at.column >= cols) return;
  Four g = LoadFour(gate.Row(at.row), at.column, cols, gate.aligned != 0);
  const Four u = LoadFour(up.Row(at.row), at.column, cols, up.aligned != 0);
  for (int i = 0; i < 4; ++i) g.v[i] = g.v[i] / (1.0f + Exp(-g.v[i])) * u.v[i];
  StoreFour(out.Row(at.row), at.column, cols, out.aligned != 0, g);
}

// x/2 · (1 + erf(x/√2)), as the CPU does it.
__device__ __forceinline__ float GeluExact(float x) {
  const float magnitude = fabsf(x);
  const float a = 6.0f < magnitude ? 6.0f : magnitude;  // a NaN stays
  return fmaf(-0.5f * a, NormalTails(a), 0.0f > x ? 0.0f : x);
}
// x/2 · (1 + tanh u) = x / (1 + e^-2u), u = √(2/π)·(x + 0.044715·x³).
__device__ __forceinline__ float GeluTanh(float x) {
  return x / (1.0f + Exp(fmaf(x * x * x, 0.044715f, x) * -0x1.988454p+0f));
}

__global__ void GeluKernel(DeviceRows x, int64_t rows, int64_t cols, int32_t tanh_form) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const Place at = PlaceOfThread();
  if (at.row >= rows || at.column >= cols) return;
  Four v = LoadFour(x.Row(at.row), at.column, cols, x.aligned != 0);
  for (int i = 0; i < 4; ++i) v.v[i] = tanh_form != 0 ? GeluTanh(v.v[i]) : GeluExact(v.v[i]);
  StoreFour(x.Row(at.row), at.column, cols, x.aligned != 0, v);
}

// --- look-ups ---

struct HalfTable {
  const uint16_t* values;  // [V, cols]
  int32_t dtype;
  int32_t aligned;

  __device__ __forceinline__ Four Load(int64_t id, int64_t column, int64_t cols) const {
    return LoadFourHalves(values + id * cols, column, cols, aligned != 0, dtype);
  }
};

struct FourBitTable {
  FourBitView weight;

  // Columns begin at a multiple of four: the values lie in two bytes of one word. A group may end
  // between them only where groups straddle rows.
  __device__ __forceinline__ Four Load(int64_t id, int64_t column, int64_t cols) const {
    const uint8_t* const unit =
        weight.codes + (id / kPanelRows * NumUnits(cols) + column / kUnitK) * kUnitBytes;
    const int64_t lane = id % 8 * 4 + column % 32 / 8;
    const int64_t word = column % kUnitK / 32 * 2 + id % kPanelRows / 8;
    const uint8_t* const codes = unit + lane * 16 + word * 4 + column % 8 / 2;
    const int shift = GroupShift(weight);
    const float offset = OffsetOf(weight);
    float scale = ScaleOf(id, column, shift, offset);
    Four four = {{0, 0, 0, 0}};
    for (int i = 0; i < 4 && column + i < cols; ++i) {
      const int64_t k = column + i;
      if (weight.straddles != 0 && i > 0) scale = ScaleOf(id, k, shift, offset);
      four.v[i] = weight.codebook[i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15] * scale;
    }
    return four;
  }
  __device__ __forceinline__ float ScaleOf(int64_t id, int64_t k, int shift, float offset) const {
    if (weight.straddles == 0) return ScaleInRow(weight, weight.k >> shift, id, k >> shift, offset);
    const int64_t number = (id * weight.k + k) >> shift;
    return ScaleAt(weight, number, number, offset);
  }
};

struct Int8Table {
  const int8_t* codes;  // [V, stride]
  const float* absmax;  // [V]
  int64_t stride;

  __device__ __forceinline__ Four Load(int64_t id, int64_t column, int64_t cols) const {
    constexpr float kReciprocal = 1.0f / 127;
    const float scale = absmax[id];
    Four four = {{0, 0, 0, 0}};
    for (int i = 0; i < 4 && column + i < cols; ++i) {
      four.v[i] = static_cast<float>(codes[id * stride + column + i]) * scale * kReciprocal;
    }
    return four;
  }
};

template <typename Table>
__global__ void EmbeddingKernel(Table table, const int32_t* ids, DeviceRows out, int64_t rows,
                                int64_t cols, int32_t accumulate) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const Place at = PlaceOfThread();
  if (at.row >= rows || at.column >= cols) return;
  Four v = table.Load(ids[at.row], at.column, cols);
  if (accumulate != 0) {
    const Four old = LoadFour(out.Row(at.row), at.column, cols, out.aligned != 0);
    for (int i = 0; i < 4; ++i) v.v[i] += old.v[i];
  }
  StoreFour(out.Row(at.row), at.column, cols, out.aligned != 0, v);
}

__global__ void GatherRowsKernel(DeviceRows x, const int32_t* from, DeviceRows out, int64_t rows,
                                 int64_t cols) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const Place at = PlaceOfThread();
  if (at.row >= rows || at.column >= cols) return;
  const Four v = LoadFour(x.Row(from[at.row]), at.column, cols, x.aligned != 0);
  StoreFour(out.Row(at.row), at.column, cols, out.aligned != 0, v);
}

// --- pooling ---

// One block for 128 columns of a sequence. Group g of its threads adds rows g, g + 16, …; then the
// groups are added in order.
__global__ void __launch_bounds__(kWarp* kRowsAtOnce)
    PoolKernel(DeviceRows x, const DeviceSequence* sequences, int32_t pooling, DeviceRows out,
               int64_t cols) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  float4* const sums = reinterpret_cast<float4*>(DynamicShared());
  const DeviceSequence sequence = sequences[blockIdx.x];
  const bool mean = pooling == static_cast<int32_t>(Pooling::kMean);
  const int64_t first = pooling == static_cast<int32_t>(Pooling::kLast)
                            ? sequence.first_row + sequence.num_rows - 1
                            : sequence.first_row;
  const int64_t end = mean ? first + sequence.num_rows : first + 1;
  const int64_t column = kPoolColumns * blockIdx.y + kFour * threadIdx.x;
  Four sum = {{0, 0, 0, 0}};
  for (int64_t row = first + threadIdx.y; row < end; row += kRowsAtOnce) {
    const Four v = LoadFour(x.Row(row), column, cols, x.aligned != 0);
    for (int i = 0; i < 4; ++i) sum.v[i] += v.v[i];
  }
  sums[kWarp * threadIdx.y + threadIdx.x] = make_float4(sum.v[0], sum.v[1], sum.v[2], sum.v[3]);
  __syncthreads();
  if (threadIdx.y != 0) return;
  for (uint32_t group = 1; group < kRowsAtOnce; ++group) {
    const float4 v = sums[kWarp * group + threadIdx.x];
    sum = {{sum.v[0] + v.x, sum.v[1] + v.y, sum.v[2] + v.z, sum.v[3] + v.w}};
  }
  const float divisor = mean ? static_cast<float>(sequence.num_rows) : 1.0f;
  for (int i = 0; i < 4; ++i) sum.v[i] /= divisor;
  StoreFour(out.Row(blockIdx.x), column, cols, out.aligned != 0, sum);
}

// x[m] / |x[m]| in place; a zero row stays. One block a row.
__global__ void __launch_bounds__(1024) NormalizeKernel(DeviceRows x, int64_t cols) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  float* const row = x.Row(blockIdx.x);
  const int64_t first = kFour * threadIdx.x, step = kFour * blockDim.x;
  float sum = 0;
  for (int64_t c = first; c < cols; c += step) {
    const Four v = LoadFour(row, c, cols, x.aligned != 0);
    for (int i = 0; i < 4; ++i) sum = fmaf(v.v[i], v.v[i], sum);
  }
  const float norm = sqrtf(RowSum(sum, reinterpret_cast<float*>(DynamicShared())));
  if (!(norm > 0)) return;
  for (int64_t c = first; c < cols; c += step) {
    Four v = LoadFour(row, c, cols, x.aligned != 0);
    for (int i = 0; i < 4; ++i) v.v[i] /= norm;
    StoreFour(row, c, cols, x.aligned != 0, v);
  }
}

template <typename Table>
void Embed(Tape* tape, const Table& table, const int32_t* ids, bool accumulate,
           const Activations& out) {
  const Dim3 block = BlockFor(out.cols);
  Launch(tape, &EmbeddingKernel<Table>, GridFor(block, out.rows, out.cols), block, {0, true}, table,
         ids, RowsOf(out), out.rows, out.cols, accumulate ? 1 : 0);
}

}  // namespace

void SiluMul(Tape* tape, const Activations& gate, const Activations& up, const Activations& out) {
  const Dim3 block = BlockFor(gate.cols);
  Launch(tape, &SiluMulKernel, GridFor(block, gate.rows, gate.cols), block, {0, true}, RowsOf(gate),
         RowsOf(up), RowsOf(out), gate.rows, gate.cols);
}

void Gelu(Tape* tape, const Activations& x, bool tanh_form) {
  const Dim3 block = BlockFor(x.cols);
  Launch(tape, &GeluKernel, GridFor(block, x.rows, x.cols), block, {0, true}, RowsOf(x), x.rows,
         x.cols, tanh_form ? 1 : 0);
}

void Embedding(Tape* tape, const DeviceTables& tables, const Weight& table, const int32_t* ids,
               bool accumulate, const Activations& out) {
  const WeightSpec& spec = table.spec;
  if (IsFourBit(spec.format)) {
    return Embed(tape, FourBitTable{ViewOf(table, tables)}, ids, accumulate, out);
  }
  if (spec.format == WeightFormat::kInt8) {
    const Int8Table codes = {static_cast<const int8_t*>(table.codes),
                             static_cast<const float*>(table.scales), Int8Stride(spec.k)};
    return Embed(tape, codes, ids, accumulate, out);
  }
  const DType dtype = spec.format == WeightFormat::kF16 ? DType::kF16 : DType::kBF16;
  const HalfTable halves = {static_cast<const uint16_t*>(table.codes), static_cast<int32_t>(dtype),
                            IsAligned(table.codes, 8) && out.cols % kFour == 0 ? 1 : 0};
  Embed(tape, halves, ids, accumulate, out);
}

void GatherRows(Tape* tape, const Activations& x, const int32_t* rows, const Activations& out) {
  const Dim3 block = BlockFor(out.cols);
  Launch(tape, &GatherRowsKernel, GridFor(block, out.rows, out.cols), block, {0, true}, RowsOf(x),
         rows, RowsOf(out), out.rows, out.cols);
}

void Pool(Tape* tape, const Activations& x, const DeviceSequences& sequences, Pooling pooling,
          bool normalize, const Activations& out) {
  const Dim3 grid = {CeilDiv(out.rows, 1), CeilDiv(out.cols, kPoolColumns)};
  constexpr uint32_t kSumBytes = kRowsAtOnce * kWarp * sizeof(float4);
  Launch(tape, &PoolKernel, grid, {kWarp, kRowsAtOnce}, {kSumBytes, true}, RowsOf(x),
         sequences.sequences, static_cast<int32_t>(pooling), RowsOf(out), out.cols);
  if (!normalize) return;
  Launch(tape, &NormalizeKernel, {CeilDiv(out.rows, 1)}, {RowBlockFor(out.cols).threads},
         {kWarp * sizeof(float), true}, RowsOf(out), out.cols);
}

}  // namespace nibble::cuda
