// Integer sums are exact in any order; what is no integer follows the definition step by step.
#include "cuda_machine.h"
#include "kernels/cuda/dense_part.h"
#include "kernels/cuda/int8_matmul.h"

namespace nibble::cuda {
namespace {

// x rounded to fp16, or x itself where fp16 has no finite value for it.
__device__ __forceinline__ float RoundedInput(float x) {
  const float half = HalfToFloat(FloatToHalf(x));
  return fabsf(half) < INFINITY ? half : x;
}

// --- rows of x in 8 bits: one block a row ---

constexpr int kMaxThreads = 512;

struct PrepareTask {
  const float* x;
  int64_t x_stride;
  Int8Rows rows;
  float limit;  // what is not below it in magnitude is an outlier
  int32_t unused;
};

struct RowSummary {
  float stat;
  int32_t count;
};

// The largest stat and the sum of counts of all threads, in every thread.
__device__ __forceinline__ RowSummary SummarizeBlock(float stat, int32_t count) {
  auto* warps = reinterpret_cast<RowSummary*>(DynamicShared());  // [threads / 32]
  for (int step = 16; step > 0; step /= 2) {
    stat = fmaxf(stat, __shfl_xor_sync(0xffffffff, stat, step));
    count += __shfl_xor_sync(0xffffffff, count, step);
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = {stat, count};
  __syncthreads();
  RowSummary all = {0, 0};
  for (unsigned i = 0; i < blockDim.x / 32; ++i) {
    all.stat = fmaxf(all.stat, warps[i].stat);
    all.count += warps[i].count;
  }
  return all;
}

// Four codes from k on, and zeros at outliers and past K.
__device__ __forceinline__ uint32_t FourCodes(const PrepareTask& task, const float* x, int64_t k,
                                              float factor) {
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float a = k + i < task.rows.k ? RoundedInput(x[k + i]) : 0.0f;
    const float kept = fabsf(a) < task.limit ? a : 0.0f;
    const auto code = static_cast<int32_t>(rintf(kept * factor));
    codes |= (static_cast<uint32_t>(code) & 0xff) << (8 * i);
  }
  return codes;
}

__global__ void __launch_bounds__(kMaxThreads) PrepareKernel(PrepareTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const Int8Rows& rows = task.rows;
  const int64_t row = blockIdx.x;
  const float* const x = task.x + row * task.x_stride;
  float stat = 0;
  int32_t count = 0;
  // Whole warps: a ballot is a word of the mask.
  for (int64_t k = threadIdx.x; k < rows.masks * 32; k += blockDim.x) {
    const float magnitude = k < rows.k ? fabsf(RoundedInput(x[k])) : 0.0f;
    const bool inside = magnitude < task.limit;
    if (inside) stat = fmaxf(stat, magnitude);
    const uint32_t mask = __ballot_sync(0xffffffff, !inside);
    if (threadIdx.x % 32 == 0) {
      rows.outliers[row * rows.masks + k / 32] = mask;
      count += __popc(mask);
    }
  }
  const RowSummary summary = SummarizeBlock(stat, count);
  const float factor = summary.stat > 0 ? 127.0f / summary.stat : 0.0f;
  auto* const codes = reinterpret_cast<uint32_t*>(rows.codes + row * rows.stride);
  for (int64_t i = threadIdx.x; i < rows.stride / 4; i += blockDim.x) {
    codes[i] = FourCodes(task, x, 4 * i, factor);
  }
  if (threadIdx.x == 0) {
    rows.stats[row] = summary.stat;
    rows.counts[row] = summary.count;
  }
}

// --- integer sums ---

constexpr int kWarps = 8;
constexpr int kWarpN = 4;      // rows of weights of a warp
constexpr int kBlockRows = 8;  // rows of x of a block, at most
constexpr int kLaneK = 16;

struct SumsTask {
  const int8_t* x;
  const int8_t* weights;
  int32_t* sums;
  int64_t stride;  // of rows of x and of weights
  int64_t sums_stride;
  int64_t rows;
  int64_t n;
};

__device__ __forceinline__ int32_t DotWords(const uint4& a, const uint4& b, int32_t sum) {
  return Dot4(a.w, b.w, Dot4(a.z, b.z, Dot4(a.y, b.y, Dot4(a.x, b.x, sum))));
}

template <int kRows>
__global__ void __launch_bounds__(32 * kWarps) SumsKernel(SumsTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t first_n = (static_cast<int64_t>(blockIdx.y) * kWarps + warp) * kWarpN;
  const int64_t first_m = static_cast<int64_t>(blockIdx.x) * kRows;
  int32_t sums[kWarpN][kRows] = {};
  for (int64_t k = lane * kLaneK; k < task.stride; k += 32 * kLaneK) {
    uint4 w[kWarpN];
#pragma unroll
    for (int n = 0; n < kWarpN; ++n) {
      w[n] = first_n + n < task.n ? LoadStream128(task.weights + (first_n + n) * task.stride + k)
                                  : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (first_m + m >= task.rows) break;
      const uint4 x = *reinterpret_cast<const uint4*>(task.x + (first_m + m) * task.stride + k);
#pragma unroll
      for (int n = 0; n < kWarpN; ++n) sums[n][m] = DotWords(x, w[n], sums[n][m]);
    }
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
#pragma unroll
    for (int n = 0; n < kWarpN; ++n) {
      int32_t sum = sums[n][m];
#pragma unroll
      for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
      if (lane == m * kWarpN + n && first_m + m < task.rows && first_n + n < task.n) {
        task.sums[(first_m + m) * task.sums_stride + first_n + n] = sum;
      }
    }
  }
}

// --- the rest: a warp takes 32 columns of one row at a time ---

constexpr int kFinishThreads = 128;
constexpr int kFinishRows = 4;  // of a block, one after the other: outliers often share columns

struct FinishTask {
  DensePart part;
  Int8Rows rows;
  const float* x;
  int64_t x_stride;
  const int32_t* sums;
  int64_t sums_stride;
};

// out + Σ a·((code · absmax)·(1/127)) over the row's outliers, k ascending. Whole warps.
__device__ __forceinline__ float AddOutliers(const FinishTask& task, int64_t m, int64_t n,
                                             float absmax, float out) {
  const Int8Rows& rows = task.rows;
  const uint32_t* const masks = rows.outliers + m * rows.masks;
  const float* const x = task.x + m * task.x_stride;
  const int8_t* const codes = static_cast<const int8_t*>(task.part.codes) + n * rows.stride;
  const int64_t lane = threadIdx.x % 32;
  for (int64_t first = 0; first < rows.masks; first += 32) {
    const uint32_t own = first + lane < rows.masks ? masks[first + lane] : 0;
    for (uint32_t words = __ballot_sync(0xffffffff, own != 0); words != 0; words &= words - 1) {
      const int word = __ffs(static_cast<int>(words)) - 1;
      for (uint32_t mask = __shfl_sync(0xffffffff, own, word); mask != 0; mask &= mask - 1) {
        const int64_t k = (first + word) * 32 + __ffs(static_cast<int>(mask)) - 1;
        const float weight = static_cast<float>(codes[k]) * absmax * (1.0f / 127);
        out = fmaf(RoundedInput(x[k]), weight, out);
      }
    }
  }
  return out;
}

__global__ void __launch_bounds__(kFinishThreads) FinishKernel(FinishTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const DensePart& part = task.part;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kFinishThreads + threadIdx.x;
  const bool valid = column < part.n;
  const int64_t n = valid ? column : part.n - 1;  // every lane takes part in ballots
  const float absmax = part.absmax[n];
  const float bias = BiasAt(part, n);
  for (int i = 0; i < kFinishRows; ++i) {
    const int64_t m = static_cast<int64_t>(blockIdx.x) * kFinishRows + i;
    if (m >= task.rows.rows) return;
    const auto sum = static_cast<float>(valid ? task.sums[m * task.sums_stride + n] : 0);
    const float scaled = sum * task.rows.stats[m] * absmax;
    float out = fmaf(scaled, 1.0f / (127 * 127), bias);
    if (task.rows.counts[m] != 0) out = AddOutliers(task, m, n, absmax, out);
    if (valid) StoreSum(part, m, n, out);
  }
}

}  // namespace

int64_t Int8RowsBytes(int64_t rows, int64_t k) {
  return RoundUp(rows * Int8Stride(k), 256) + RoundUp(rows * Int8Masks(k) * 4, 256) +
         RoundUp(rows * 8, 256);
}

Int8Rows PlaceInt8Rows(char* memory, int64_t rows, int64_t k) {
  char* const outliers = memory + RoundUp(rows * Int8Stride(k), 256);
  char* const stats = outliers + RoundUp(rows * Int8Masks(k) * 4, 256);
  return {reinterpret_cast<int8_t*>(memory),
          reinterpret_cast<uint32_t*>(outliers),
          reinterpret_cast<float*>(stats),
          reinterpret_cast<int32_t*>(stats + rows * 4),
          rows,
          k,
          Int8Stride(k),
          Int8Masks(k)};
}

void PrepareInt8(Tape* tape, const Activations& x, float threshold, const Int8Rows& out) {
  const PrepareTask task = {x.data, x.stride, out, threshold > 0 ? threshold : INFINITY, 0};
  uint32_t threads = 128;
  while (threads < kMaxThreads && threads * 8 < x.cols) threads *= 2;
  Launch(tape, PrepareKernel, {static_cast<uint32_t>(x.rows), 1, 1}, {threads, 1, 1},
         {threads / 32 * static_cast<uint32_t>(sizeof(RowSummary)), true}, task);
}

void Int8Sums(Tape* tape, const Int8Rows& rows, const void* codes, int64_t n, int32_t* sums,
              int64_t sums_stride) {
  const SumsTask task = {
      rows.codes, static_cast<const int8_t*>(codes), sums, rows.stride, sums_stride, rows.rows, n};
  const uint32_t blocks = CeilDiv(n, kWarps * kWarpN);
  const Dim3 block = {32 * kWarps, 1, 1};
  if (rows.rows == 1) {
    return Launch(tape, SumsKernel<1>, {1, blocks, 1}, block, {0, true}, task);
  }
  Launch(tape, SumsKernel<kBlockRows>, {CeilDiv(rows.rows, kBlockRows), blocks, 1}, block,
         {0, true}, task);
}

void FinishInt8(Tape* tape, const Activations& x, const Int8Rows& rows, const DensePart& part,
                const int32_t* sums, int64_t sums_stride) {
  const FinishTask task = {part, rows, x.data, x.stride, sums, sums_stride};
  Launch(tape, FinishKernel, {CeilDiv(rows.rows, kFinishRows), CeilDiv(part.n, kFinishThreads), 1},
         {kFinishThreads, 1, 1}, {0, true}, task);
}

}  // namespace nibble::cuda
