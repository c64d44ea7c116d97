// Writes rows of fp32 as tiles of fp16: a block a row, first its largest magnitude, then pieces of
// 16 bytes. Knows no weights.
#include "cuda_machine.h"
#include "kernels/cuda/four_bit_layout.h"
#include "kernels/cuda/prepare_tiles.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

struct PrepareTask {
  const float* x;
  char* tiles;
  float* scale;
  int64_t stride;
  int64_t rows;
  int64_t k;
  int64_t units;
};

// The largest bits of |x|, in every thread: bits order as magnitudes do, NaN above all.
__device__ uint32_t LargestBits(const float* row, int64_t k) {
  uint32_t largest = 0;
  // Few rows leave most processors idle: the loads' latency is what a row costs.
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    const uint32_t bits = BitsOf(row[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  for (int step = 16; step > 0; step /= 2) {
    const uint32_t other = __shfl_xor_sync(~0u, largest, step);
    largest = other > largest ? other : largest;
  }
  uint32_t* const of_warps = reinterpret_cast<uint32_t*>(DynamicShared());
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = largest;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    largest = of_warps[warp] > largest ? of_warps[warp] : largest;
  }
  return largest;
}

// Of the power of two that brings values of these bits to [2^14, 2^15): its exponent, biased.
// Below 15 the scale would not be a normal number.
__device__ uint32_t ScaleExponent(uint32_t largest_bits) {
  const uint32_t exponent = largest_bits >> 23;
  if (exponent == 255) return 127;
  return exponent < 15 ? 1 : exponent - 14;
}

// Piece i of a row: half step i % 8 of unit i / 8.
__device__ uint4 Piece(const float* row, int64_t k, int64_t i, float inverse) {
  const int step = static_cast<int>(i % 8 / 2), half = static_cast<int>(i % 2);
  const int64_t first = i / 8 * kUnitK + 32 * (step / 2) + 4 * (step % 2) + 2 * half;
  uint32_t pairs[4];
  for (int pair = 0; pair < 4; ++pair) {
    const int64_t at = first + 8 * pair;  // UnitK(step, 8·half + 2·pair)
    const float low = at < k ? row[at] * inverse : 0.0f;
    const float high = at + 1 < k ? row[at + 1] * inverse : 0.0f;
    pairs[pair] = PackHalf(low, high);
  }
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

__global__ void __launch_bounds__(kThreads) PrepareTilesKernel(PrepareTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const int64_t m = blockIdx.x;
  const int64_t k = m < task.rows ? task.k : 0;
  const float* const row = task.x + (m < task.rows ? m * task.stride : 0);
  const uint32_t exponent = ScaleExponent(LargestBits(row, k));
  const float inverse = FloatOf((254 - exponent) << 23);
  if (threadIdx.x == 0) task.scale[m] = FloatOf(exponent << 23);
  char* const out = task.tiles + m / kTileRows * task.units * kTileUnitBytes + m % kTileRows * 16;
  for (int64_t i = threadIdx.x; i < task.units * 8; i += kThreads) {
    *reinterpret_cast<uint4*>(out + i * kTileHalfStepBytes) = Piece(row, k, i, inverse);
  }
}

}  // namespace

TiledRows PrepareTiles(Tape* tape, const Activations& x, char* scratch) {
  const int64_t tiles = NumRowTiles(x.rows);
  float* const scale =
      reinterpret_cast<float*>(scratch + tiles * NumUnits(x.cols) * kTileUnitBytes);
  const PrepareTask task = {x.data, scratch, scale, x.stride, x.rows, x.cols, NumUnits(x.cols)};
  const LaunchOptions options = {kWarps * sizeof(uint32_t), true};
  Launch(tape, &PrepareTilesKernel, {static_cast<uint32_t>(tiles * kTileRows), 1, 1},
         {kThreads, 1, 1}, options, task);
  return {reinterpret_cast<const uint16_t*>(scratch), scale, x.rows, x.cols};
}

}  // namespace nibble::cuda
