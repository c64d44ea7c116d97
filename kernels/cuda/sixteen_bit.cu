// Two kernels. Both read rows of weights 128 bytes at a time; neither knows where its rows of x
// come from nor which matrices are worth it.
#include "cuda_machine.h"
#include "kernels/cuda/dense_part.h"
#include "kernels/cuda/sixteen_bit.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kLaneK = 8;  // k values of a lane's 16 bytes

struct Words {
  uint32_t w[4];
};

__device__ __forceinline__ Words StreamWords(const uint16_t* from) {
  const uint4 v = LoadStream128(from);
  return {{v.x, v.y, v.z, v.w}};
}

// --- exact ---

// A block's tile is 32·kN features by 4·kM rows of x. Its weights and x come through shared memory
// kChunk of k at a time, kStages - 1 chunks ahead. Lane l of warp w sums features l + 32·j, j < kN,
// of rows kM·w + i, i < kM.
constexpr int kExactWarps = 4;
constexpr int kChunk = 64;
// Rows in shared memory are 16 bytes longer, so that neighbouring lanes meet different banks.
constexpr int kWeightPitch = kChunk * 2 + 16;
constexpr int kXPitch = kChunk * 4 + 16;

struct ExactTask {
  DenseParts parts;
  const float* x;
  int64_t x_stride;
  int64_t rows;
  int64_t k;
  int64_t weight_vectors;  // 1: rows of weights may be read 16 bytes at a time
  int64_t x_vectors;       // 1: rows of x likewise
};

template <int kN, int kM>
struct ExactTile {
  static constexpr int kFeatures = 32 * kN;
  static constexpr int kRows = kExactWarps * kM;
  static constexpr int kWeightBytes = kFeatures * kWeightPitch;
  static constexpr int kStageBytes = kWeightBytes + kRows * kXPitch;
};

// Chunk values k … k + kChunk of `count` rows into shared memory, zeros where there are none; 16
// bytes at a time and later, where rows permit, else at once.
template <typename T>
__device__ __forceinline__ void StageRows(char* to, int pitch, const T* from, int64_t stride,
                                          int num_rows, int64_t valid_rows, int64_t k, int64_t end,
                                          bool vectors) {
  constexpr int kStep = 16 / static_cast<int>(sizeof(T));
  constexpr int kSteps = kChunk / kStep;
  for (int i = static_cast<int>(threadIdx.x); i < num_rows * kSteps; i += 32 * kExactWarps) {
    const int row = i / kSteps, step = i % kSteps;
    char* const place = to + row * pitch + step * 16;
    const int64_t first = k + step * kStep;
    const T* const source = from + row * stride + first;
    if (vectors) {
      CopyAsync16(SharedAddress(place), source, row < valid_rows && first < end);
      continue;
    }
    for (int j = 0; j < kStep; ++j) {
      reinterpret_cast<T*>(place)[j] = row < valid_rows && first + j < end ? source[j] : T{0};
    }
  }
}

template <bool kBf16>
__device__ __forceinline__ float Widen(uint32_t bits) {
  return kBf16 ? FloatOf(bits << 16) : HalfToFloat(static_cast<uint16_t>(bits));
}

// The block's stage times itself: every sum takes kChunk fused steps, k ascending.
template <bool kBf16, int kN, int kM>
__device__ __forceinline__ void MultiplyStage(const char* stage, float (&sums)[kN][kM]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const uint32_t weights = SharedAddress(stage + lane * kWeightPitch);
  const uint32_t x = SharedAddress(stage + ExactTile<kN, kM>::kWeightBytes + warp * kM * kXPitch);
#pragma unroll 2
  for (int k = 0; k < kChunk; k += kLaneK) {
    float w[kN][kLaneK];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const uint4 v = LoadShared128(weights + n * 32 * kWeightPitch + k * 2);
      const Words words = {{v.x, v.y, v.z, v.w}};
#pragma unroll
      for (int i = 0; i < kLaneK; ++i) {
        w[n][i] = Widen<kBf16>(words.w[i / 2] >> (16 * (i % 2)) & 0xffff);
      }
    }
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 v = LoadShared128(x + m * kXPitch + (k + 4 * half) * 4);
        const Words words = {{v.x, v.y, v.z, v.w}};
#pragma unroll
        for (int n = 0; n < kN; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sums[n][m] = fmaf(w[n][4 * half + i], FloatOf(words.w[i]), sums[n][m]);
          }
        }
      }
    }
  }
}

template <bool kBf16, int kN, int kM, int kStages>
__global__ void __launch_bounds__(32 * kExactWarps) ExactKernel(ExactTask task) {
  using Tile = ExactTile<kN, kM>;
  WaitForPreviousKernel();
  LetNextKernelStart();
  const PartPlace place = FindPart(task.parts, blockIdx.y, Tile::kFeatures);
  const DensePart& part = task.parts.parts[place.part];
  const int64_t first_m = static_cast<int64_t>(blockIdx.x) * Tile::kRows;
  const auto* weights = static_cast<const uint16_t*>(part.codes) + place.first_n * task.k;
  const float* const x = task.x + first_m * task.x_stride;
  const auto stage = [&](int64_t chunk) {
    const int64_t k = chunk * kChunk;
    char* const to = DynamicShared() + chunk % kStages * Tile::kStageBytes;
    StageRows(to, kWeightPitch, weights, task.k, Tile::kFeatures, part.n - place.first_n, k, task.k,
              task.weight_vectors != 0);
    StageRows(to + Tile::kWeightBytes, kXPitch, x, task.x_stride, Tile::kRows, task.rows - first_m,
              k, task.k, task.x_vectors != 0);
    CopyAsyncCommit();
  };
  const int64_t chunks = (task.k + kChunk - 1) / kChunk;
  for (int64_t chunk = 0; chunk < kStages - 1; ++chunk) stage(chunk);
  float sums[kN][kM] = {};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    CopyAsyncWait<kStages - 2>();
    __syncthreads();  // this chunk has come, and the stage before it is free
    stage(chunk + kStages - 1);
    MultiplyStage<kBf16, kN, kM>(DynamicShared() + chunk % kStages * Tile::kStageBytes, sums);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const int64_t m = first_m + warp * kM + i;
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const int64_t n = place.first_n + lane + 32 * j;
      if (m < task.rows && n < part.n) StoreSum(part, m, n, AddBias(part, n, sums[j][i]));
    }
  }
}

bool HasVectors(const Activations& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0;
}

uint32_t NumBlocks(const DenseParts& parts, int64_t features_per_block) {
  uint32_t blocks = 0;
  for (int64_t i = 0; i < parts.num_parts; ++i) {
    blocks += CeilDiv(parts.parts[i].n, features_per_block);
  }
  return blocks;
}

template <bool kBf16, int kN, int kM, int kStages>
void LaunchExact(Tape* tape, const ExactTask& task) {
  using Tile = ExactTile<kN, kM>;
  const Dim3 grid = {CeilDiv(task.rows, Tile::kRows), NumBlocks(task.parts, Tile::kFeatures), 1};
  Launch(tape, ExactKernel<kBf16, kN, kM, kStages>, grid, {32 * kExactWarps, 1, 1},
         {kStages * Tile::kStageBytes, true}, task);
}

template <bool kBf16>
void LaunchExactFor(Tape* tape, const ExactTask& task) {
  return task.rows <= 8 ? LaunchExact<kBf16, 1, 2, 8>(tape, task)
                        : LaunchExact<kBf16, 2, 8, 3>(tape, task);
}

// --- tensor cores ---

// Rows of x are A of the mma and rows of weights are B, whose registers are then what a lane loads:
// 16 bytes of a row are two steps of 16 k. Which k goes where inside is free, as x is read alike.
constexpr int kTileRows = 16;  // rows of x of an mma
constexpr int kPanel = 8;      // rows of weights of an mma
constexpr int kUnit = 64;      // k values that a warp takes at a time

struct MmaTask {
  DenseParts parts;
  const void* x;          // bf16: fp32 rows; fp16: prepared values
  const float* x_scales;  // fp16: of prepared rows
  int64_t x_stride;
  int64_t rows;
  int64_t k;
  int64_t x_vectors;
};

// A row's values k … k + 7: two bf16 values that add up to each, or the prepared value alone.
struct XWords {
  Words high, low;
};

__device__ __forceinline__ void LoadX(const float* row, int64_t k, int64_t end, bool vectors,
                                      float (&x)[kLaneK]) {
  if (vectors) {
    const float4 a = *reinterpret_cast<const float4*>(row + k);
    const float4 b = *reinterpret_cast<const float4*>(row + k + 4);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < kLaneK; ++i) x[i] = k + i < end ? row[k + i] : 0.0f;
}

// What is Inf or NaN, or rounds to Inf, has no rest.
__device__ __forceinline__ float FiniteOrZero(float x) { return fabsf(x) < INFINITY ? x : 0.0f; }

__device__ __forceinline__ XWords SplitRow(const float* row, int64_t k, int64_t end, bool vectors) {
  float x[kLaneK];
  LoadX(row, k, end, vectors, x);
  XWords words;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t high = PackBf16(x[2 * i], x[2 * i + 1]);
    words.high.w[i] = high;
    words.low.w[i] = PackBf16(FiniteOrZero(x[2 * i] - FloatOf(high << 16)),
                              FiniteOrZero(x[2 * i + 1] - FloatOf(high & 0xffff0000)));
  }
  return words;
}

template <bool kBf16>
__device__ __forceinline__ XWords LoadXWords(const MmaTask& task, int64_t m, int64_t k) {
  XWords words = {};
  if (m >= task.rows || k >= task.k) return words;
  if (kBf16) {
    return SplitRow(static_cast<const float*>(task.x) + m * task.x_stride, k, task.k,
                    task.x_vectors != 0);
  }
  const uint4 v =
      *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(task.x) + m * task.x_stride + k);
  words.high = {{v.x, v.y, v.z, v.w}};
  return words;
}

// Row g of each of a block's panels, at a lane's k of the first unit. A row past the last one is
// the last again; what comes of it is not stored.
template <int kPanels>
struct LaneRows {
  const uint16_t* rows[kPanels];
};
template <int kPanels>
__device__ __forceinline__ LaneRows<kPanels> RowsOfLane(const DensePart& part, int64_t n, int64_t k,
                                                        int64_t row_k) {
  LaneRows<kPanels> lane;
#pragma unroll
  for (int panel = 0; panel < kPanels; ++panel) {
    const int64_t row = n + kPanel * panel;
    const int64_t last = row < part.n ? row : part.n - 1;
    lane.rows[panel] = static_cast<const uint16_t*>(part.codes) + last * row_k + k;
  }
  return lane;
}

// 32 k of each panel, `offset` k further on; zeros where the row ends before.
template <int kPanels>
__device__ __forceinline__ void LoadHalf(const LaneRows<kPanels>& lane, int64_t offset, bool valid,
                                         Words (&half)[kPanels]) {
#pragma unroll
  for (int panel = 0; panel < kPanels; ++panel) {
    half[panel] = valid ? StreamWords(lane.rows[panel] + offset) : Words{};
  }
}

template <bool kBf16>
__device__ __forceinline__ void MultiplyStep(float (&d)[4], int s, const Words& first,
                                             const Words& second, const Words& weights) {
  const uint32_t a[4] = {first.w[2 * s], second.w[2 * s], first.w[2 * s + 1], second.w[2 * s + 1]};
  const uint32_t b[2] = {weights.w[2 * s], weights.w[2 * s + 1]};
  kBf16 ? MmaBf16(d, a, b) : MmaHalf(d, a, b);
}

// d[panel] += rows g (first) and g + 8 (second) of x times half a unit.
template <bool kBf16, int kPanels>
__device__ __forceinline__ void MultiplyHalf(float (&d)[kPanels][4], const XWords& first,
                                             const XWords& second, const Words (&half)[kPanels]) {
#pragma unroll
  for (int s = 0; s < 2; ++s) {
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      MultiplyStep<kBf16>(d[panel], s, first.high, second.high, half[panel]);
    }
    if constexpr (kBf16) {
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel) {
        MultiplyStep<kBf16>(d[panel], s, first.low, second.low, half[panel]);
      }
    }
  }
}

// Adds up the warps' sums, warp 0 first, and stores them.
template <int kPanels, int kTiles>
__device__ __forceinline__ void FinishBlock(const MmaTask& task, const DensePart& part,
                                            int64_t first_n, int64_t first_m,
                                            const float (&d)[kTiles][kPanels][4]) {
  constexpr int kN = kPanels * kPanel, kM = kTiles * kTileRows;
  auto* sums = reinterpret_cast<float*>(DynamicShared());  // [kWarps][kM][kN]
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  float* const own = sums + static_cast<int>(threadIdx.x) / 32 * kM * kN;
#pragma unroll
  for (int i = 0; i < 4 * kPanels * kTiles; ++i) {
    const int tile = i / (4 * kPanels), panel = i / 4 % kPanels, at = i % 4;
    own[(tile * kTileRows + g + at / 2 * 8) * kN + panel * kPanel + 2 * t + at % 2] =
        d[tile][panel][at];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kM * kN; i += 32 * kWarps) {
    const int64_t m = first_m + i / kN, n = first_n + i % kN;
    if (m >= task.rows || n >= part.n) continue;
    float sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp * kM * kN + i];
    const float scale = task.x_scales == nullptr ? 1.0f : task.x_scales[m];
    StoreSum(part, m, n, AddBias(part, n, sum * scale));
  }
}

// A block takes kPanels panels and 8·kEights rows of x; its warps take every eighth unit of k.
template <bool kBf16, int kPanels, int kEights>
__global__ void __launch_bounds__(32 * kWarps, kEights == 1 ? 2 : 1) MmaKernel(MmaTask task) {
  constexpr int kTiles = (kEights + 1) / 2;
  // Of a unit, under way at a time: as much as registers permit.
  constexpr int kHalves = kPanels > 2 ? 1 : 2;
  LetNextKernelStart();
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const PartPlace place = FindPart(task.parts, blockIdx.y, kPanels * kPanel);
  const DensePart& part = task.parts.parts[place.part];
  const int64_t first_m = static_cast<int64_t>(blockIdx.x) * kEights * 8;
  const LaneRows<kPanels> rows = RowsOfLane<kPanels>(part, place.first_n + g, t * kLaneK, task.k);
  float d[kTiles][kPanels][4] = {};
  for (int64_t base = warp * kUnit; base < task.k; base += kWarps * kUnit) {
#pragma unroll 1
    for (int round = 0; round < 2 / kHalves; ++round) {
      const int64_t offset = base + 32 * kHalves * round, k = offset + t * kLaneK;
      Words weights[kHalves][kPanels];
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        LoadHalf<kPanels>(rows, offset + 32 * half, k + 32 * half < task.k, weights[half]);
      }
      if (offset < kWarps * kUnit) WaitForPreviousKernel();  // x depends on it, weights do not
#pragma unroll
      for (int i = 0; i < kHalves * kTiles; ++i) {
        const int half = i / kTiles, tile = i % kTiles;
        const int64_t m = first_m + tile * kTileRows + g;
        const XWords first = LoadXWords<kBf16>(task, m, k + 32 * half);
        const XWords second =
            kEights > 1 ? LoadXWords<kBf16>(task, m + 8, k + 32 * half) : XWords{};
        MultiplyHalf<kBf16, kPanels>(d[tile], first, second, weights[half]);
      }
    }
  }
  WaitForPreviousKernel();
  FinishBlock<kPanels, kTiles>(task, part, place.first_n, first_m, d);
}

template <bool kBf16, int kPanels, int kEights>
void LaunchMma(Tape* tape, const MmaTask& task) {
  const Dim3 grid = {CeilDiv(task.rows, kEights * 8), NumBlocks(task.parts, kPanels * kPanel), 1};
  constexpr int kTiles = (kEights + 1) / 2;
  constexpr uint32_t kShared = kWarps * kPanels * kPanel * kTiles * kTileRows * 4;
  Launch(tape, MmaKernel<kBf16, kPanels, kEights>, grid, {32 * kWarps, 1, 1}, {kShared, true},
         task);
}

// Wide blocks read x less often; narrow ones keep every multiprocessor busy.
template <bool kBf16>
void LaunchMmaFor(Tape* tape, int num_processors, const MmaTask& task) {
  constexpr int kWide = 8, kNarrow = 2;
  if (task.rows > 8) return LaunchMma<kBf16, kWide, 4>(tape, task);
  if (NumBlocks(task.parts, kWide * kPanel) >= static_cast<uint32_t>(num_processors)) {
    return LaunchMma<kBf16, kWide, 1>(tape, task);
  }
  LaunchMma<kBf16, kNarrow, 1>(tape, task);
}

}  // namespace

void SixteenBitExact(Tape* tape, WeightFormat format, const Activations& x,
                     const DenseParts& parts) {
  const ExactTask task = {parts,
                          x.data,
                          x.stride,
                          x.rows,
                          x.cols,
                          x.cols % kLaneK == 0,
                          HasVectors(x) && x.cols % 4 == 0};
  format == WeightFormat::kBf16 ? LaunchExactFor<true>(tape, task)
                                : LaunchExactFor<false>(tape, task);
}

void Bf16Mma(Tape* tape, int num_processors, const Activations& x, const DenseParts& parts) {
  const MmaTask task = {parts, x.data, nullptr, x.stride, x.rows, x.cols, HasVectors(x)};
  LaunchMmaFor<true>(tape, num_processors, task);
}

void HalfMma(Tape* tape, int num_processors, const PreparedRows& x, const DenseParts& parts) {
  const MmaTask task = {parts, x.values, x.scales, x.stride, x.rows, x.k, 1};
  LaunchMmaFor<false>(tape, num_processors, task);
}

}  // namespace nibble::cuda
