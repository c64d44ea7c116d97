// A warp decodes one unit at a time: 512 bytes in, 16 rows of 64 values out.
#include "kernels/cuda/four_bit_unpack.h"
#include "kernels/cuda/four_bit_values.inl"
#include "kernels/cuda/power_of_two.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = 8;
constexpr int kUnitsOfWarp = 4;
constexpr int kRun = 8;  // consecutive k in a word

struct UnpackTask {
  FourBitView weight;
  int64_t first;
  int64_t count;
  void* out;
  int64_t stride;
  int64_t aligned;  // 1: every run of a row begins at a multiple of 16 bytes
  const float* row_scales;
};

// The two scales that a run may have: groups are longer than a run. `second` from `change` on.
struct RunScales {
  float first;
  float second;
  int change;
};

__device__ __forceinline__ RunScales ScalesOfRun(const FourBitView& w, int shift, float offset,
                                                 int64_t n, int64_t k) {
  if (w.straddles == 0) {
    const float scale = ScaleInRow(w, w.k >> shift, n, k >> shift, offset);
    return {scale, scale, kRun};
  }
  const int64_t flat = n * w.k + k, number = flat >> shift;
  const int64_t left = ((number + 1) << shift) - flat;
  RunScales run = {ScaleAt(w, number, number, offset), 0, kRun};
  if (left < kRun && k + left < w.k) {
    run.second = ScaleAt(w, number + 1, number + 1, offset);
    run.change = static_cast<int>(left);
  }
  return run;
}

template <DType kType>
__device__ __forceinline__ void StoreRun(const UnpackTask& task, int64_t at, int64_t count,
                                         const float (&values)[kRun]) {
  if constexpr (kType == DType::kF32) {
    float* const out = static_cast<float*>(task.out) + at;
    if (task.aligned != 0 && count >= kRun) {
      *reinterpret_cast<float4*>(out) = make_float4(values[0], values[1], values[2], values[3]);
      *reinterpret_cast<float4*>(out + 4) = make_float4(values[4], values[5], values[6], values[7]);
      return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if (i < count) out[i] = values[i];
    }
  } else {
    uint16_t* const out = static_cast<uint16_t*>(task.out) + at;
    uint32_t pairs[kRun / 2];
#pragma unroll
    for (int i = 0; i < kRun; i += 2) {
      pairs[i / 2] = kType == DType::kF16 ? PackHalf(values[i], values[i + 1])
                                          : PackBf16(values[i], values[i + 1]);
    }
    if (task.aligned != 0 && count >= kRun) {
      *reinterpret_cast<uint4*>(out) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if (i < count) out[i] = static_cast<uint16_t>(pairs[i / 2] >> (16 * (i % 2)));
    }
  }
}

template <DType kType>
__device__ __forceinline__ void UnpackUnit(const UnpackTask& task, const float* lines,
                                           int64_t panel, int64_t unit, int shift, float offset) {
  const FourBitView& w = task.weight;
  const uint32_t lane = threadIdx.x % 32;
  const uint4 codes =
      LoadStream128(w.codes + (panel * NumUnits(w.k) + unit) * kUnitBytes + lane * 16);
  const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t n = panel * kPanelRows + lane / 4 + 8 * (i % 2);
    const int64_t k = unit * kUnitK + 32 * (i / 2) + lane % 4 * kRun;
    if (n < task.first || n >= task.first + task.count || k >= w.k) continue;
    const RunScales run = ScalesOfRun(w, shift, offset, n, k);
    const float factor =
        task.row_scales == nullptr ? 1.0f : InverseOfPower(task.row_scales[n - task.first]);
    float values[kRun];
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      values[j] = ValueOf(lines, words[i], j, lane * 4) * (j < run.change ? run.first : run.second);
      values[j] *= factor;
    }
    StoreRun<kType>(task, (n - task.first) * task.stride + k, w.k - k, values);
  }
}

// blockIdx.x: the panel, counted from that of row `first`.
template <DType kType>
__global__ void Unpack(UnpackTask task) {
  float* const lines = reinterpret_cast<float*>(DynamicShared());
  FillCodebook(lines, task.weight.codebook);
  LetNextKernelStart();
  __syncthreads();
  WaitForPreviousKernel();
  const int shift = GroupShift(task.weight);
  const float offset = OffsetOf(task.weight);
  const int64_t panel = task.first / kPanelRows + blockIdx.x, units = NumUnits(task.weight.k);
  const int64_t first = (int64_t{blockIdx.y} * kWarps + threadIdx.x / 32) * kUnitsOfWarp;
  for (int64_t unit = first; unit < first + kUnitsOfWarp && unit < units; ++unit) {
    UnpackUnit<kType>(task, lines, panel, unit, shift, offset);
  }
}

}  // namespace

void UnpackFourBit(Tape* tape, const FourBitView& weight, int64_t first, int64_t count, DType type,
                   void* out, int64_t stride, const float* row_scales) {
  if (count == 0) return;
  const int64_t bytes = SizeOf(type);
  const int64_t aligned =
      reinterpret_cast<uintptr_t>(out) % 16 == 0 && stride * bytes % 16 == 0 ? 1 : 0;
  const UnpackTask task = {weight, first, count, out, stride, aligned, row_scales};
  const int64_t panels = (first + count - 1) / kPanelRows - first / kPanelRows + 1;
  const Dim3 grid = {static_cast<uint32_t>(panels),
                     CeilDiv(NumUnits(weight.k), kWarps * kUnitsOfWarp)};
  const auto kernel = type == DType::kF32   ? Unpack<DType::kF32>
                      : type == DType::kF16 ? Unpack<DType::kF16>
                                            : Unpack<DType::kBF16>;
  Launch(tape, kernel, grid, {kThreads}, {kCodebookBytes, true}, task);
}

}  // namespace nibble::cuda
