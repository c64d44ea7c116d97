// EncoderAttention on the tensor cores: every row of a sequence attends to all of them. Keys and
// values become fp16 on their way to shared memory; each tile's largest value sets the power of two
// that they are divided by.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_tiles.h"

namespace nibble::cuda {
namespace {

template <int kBucket>
constexpr int kWarps = kBucket == 256 ? 4 : 8;
template <int kBucket>
using EncoderQueries = Queries<HalfPairs, kBucket, kBucket != 128>;
template <int kBucket>
using EncoderSums = RowSums<kBucket / 16>;

struct EncoderTask {
  const DeviceSequence* sequences;
  const float* q;
  const float* k;
  const float* v;
  float* out;
  int64_t q_stride;
  int64_t k_stride;
  int64_t v_stride;
  int64_t out_stride;
  float scale;  // in units of log2
  int32_t head_dim;
};

// A block's shared memory: a tile's keys and values; the warps' largest magnitudes of both; queries
// where registers are short. 32, 32 and 96 KB, and 64 bytes.
template <int kBucket>
struct EncoderShared {
  using Layout = TileLayout<kBucket>;
  static constexpr uint32_t kLargest = 2 * Layout::kBytes;
  static constexpr uint32_t kQueries = kLargest + 2 * 8 * sizeof(float);
  static constexpr uint32_t kBytes =
      kQueries + kWarps<kBucket> * EncoderQueries<kBucket>::kStagedBytes;
};

// fp16 reaches 2^16: a tile's largest magnitude is brought below 2^15, which leaves values down to
// 2^-29 of it their full precision.
constexpr float kTarget = 16384.0f;
__device__ __forceinline__ float Unit(uint32_t exponent) { return PowerOf(exponent) / kTarget; }

// 64 rows of one head's keys or values; those from `count` on do not exist.
struct RowTile {
  const float* rows;
  int64_t stride;
  int count;
  int head_dim;

  __device__ const float* Chunk(int chunk, int* slot, int* column) const {
    *slot = chunk / (head_dim / 8);
    *column = chunk % (head_dim / 8);
    return *slot < count ? rows + *slot * stride + *column * 8 : nullptr;
  }
};

// The largest magnitude of this warp's share of a tile.
__device__ float Largest(const RowTile& tile) {
  float largest = 0;
  const int chunks = kTileSlots * tile.head_dim / 8;
  for (int c = static_cast<int>(threadIdx.x); c < chunks; c += static_cast<int>(blockDim.x)) {
    int slot, column;
    const auto* values = reinterpret_cast<const float4*>(tile.Chunk(c, &slot, &column));
    if (values == nullptr) break;  // slots ascend
    for (int i = 0; i < 2; ++i) {
      const float4 x = values[i];
      largest = fmaxf(largest, fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w))));
    }
  }
  for (int step = kWarpLanes / 2; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
  }
  return largest;
}

// The tile times `factor` as fp16 rows; rows that do not exist are zeros.
template <int kBucket>
__device__ void StoreTile(const RowTile& tile, float factor, char* shared) {
  const int chunks = kTileSlots * tile.head_dim / 8;
  for (int c = static_cast<int>(threadIdx.x); c < chunks; c += static_cast<int>(blockDim.x)) {
    int slot, column;
    const auto* values = reinterpret_cast<const float4*>(tile.Chunk(c, &slot, &column));
    uint4 packed = {0, 0, 0, 0};
    if (values != nullptr) {
      const float4 x = values[0];
      const float4 y = values[1];
      packed = {PackHalf(x.x * factor, x.y * factor), PackHalf(x.z * factor, x.w * factor),
                PackHalf(y.x * factor, y.y * factor), PackHalf(y.z * factor, y.w * factor)};
    }
    *reinterpret_cast<uint4*>(shared + TileLayout<kBucket>::RowChunk(slot, column)) = packed;
  }
}

// The two largest magnitudes of the block's tiles, keys then values, as exponents.
struct TileExponents {
  uint32_t k;
  uint32_t v;
};
template <int kBucket>
__device__ __forceinline__ TileExponents ShareExponents(const RowTile& k, const RowTile& v,
                                                        float* shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const float warp_k = Largest(k);
  const float warp_v = Largest(v);
  if (threadIdx.x % kWarpLanes == 0) {
    shared[warp] = warp_k;
    shared[8 + warp] = warp_v;
  }
  __syncthreads();
  float largest_k = 0;
  float largest_v = 0;
  for (int w = 0; w < kWarps<kBucket>; ++w) {
    largest_k = fmaxf(largest_k, shared[w]);
    largest_v = fmaxf(largest_v, shared[8 + w]);
  }
  return {ExponentBits(largest_k), ExponentBits(largest_v)};
}

// Sums of values so far, told in a unit that has grown.
template <int kBucket>
__device__ __forceinline__ void ChangeUnit(float factor, EncoderSums<kBucket>* sums) {
  for (int n = 0; n < kBucket / 8; ++n) {
    for (int i = 0; i < 4; ++i) sums->values[n][i] *= factor;
  }
}

template <int kBucket>
__device__ __forceinline__ void WriteRows(const EncoderTask& task, const EncoderSums<kBucket>& sums,
                                          float unit, float* const (&out)[2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (out[h] == nullptr) continue;
    const float factor = unit / sums.weights[2 * h];
    ForValues(sums, h, task.head_dim, 0, 1, [&](int d, float a, float b) {
      out[h][d] = a * factor;
      out[h][d + 1] = b * factor;
    });
  }
}

// Keys and values from `slot` on into shared memory, for all threads; returns the keys' exponent.
// The values' exponent only grows.
template <int kBucket>
__device__ __forceinline__ uint32_t LoadTile(const EncoderTask& task,
                                             const DeviceSequence& sequence, int slot, char* shared,
                                             uint32_t* exponent, EncoderSums<kBucket>* sums) {
  const int64_t row = sequence.first_row + slot;
  const int column = static_cast<int>(blockIdx.y) * task.head_dim;
  const int count = sequence.num_rows - slot;
  const RowTile k = {task.k + row * task.k_stride + column, task.k_stride, count, task.head_dim};
  const RowTile v = {task.v + row * task.v_stride + column, task.v_stride, count, task.head_dim};
  const TileExponents exponents = ShareExponents<kBucket>(
      k, v, reinterpret_cast<float*>(shared + EncoderShared<kBucket>::kLargest));
  StoreTile<kBucket>(k, OneOver(exponents.k) * kTarget, shared);
  if (exponents.v > *exponent) {
    if (slot > 0) ChangeUnit<kBucket>(PowerOf(*exponent) * OneOver(exponents.v), sums);
    *exponent = exponents.v;
  }
  StoreTile<kBucket>(v, OneOver(*exponent) * kTarget, shared + TileLayout<kBucket>::kBytes);
  __syncthreads();
  return exponents.k;
}

// Grid: [tiles of rows, heads, sequences].
template <int kBucket>
__global__ void __launch_bounds__(kWarps<kBucket>* kWarpLanes, kBucket == 64 ? 2 : 1)
    EncoderKernel(EncoderTask task) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  const DeviceSequence sequence = task.sequences[blockIdx.z];
  const int first = static_cast<int>(blockIdx.x) * kWarps<kBucket> * kTileRows;
  if (first >= sequence.num_rows) return;
  char* shared = DynamicShared();
  if (task.head_dim != kBucket) FillWithZeros(shared, EncoderShared<kBucket>::kLargest);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const float* q[2] = {nullptr, nullptr};
  float* out[2] = {nullptr, nullptr};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = first + warp * kTileRows + lane / 4 + 8 * h;
    if (r >= sequence.num_rows) continue;
    const int column = static_cast<int>(blockIdx.y) * task.head_dim;
    q[h] = task.q + (sequence.first_row + r) * task.q_stride + column;
    out[h] = task.out + (sequence.first_row + r) * task.out_stride + column;
  }
  EncoderQueries<kBucket> queries;
  queries.Load(q, task.head_dim,
               shared + EncoderShared<kBucket>::kQueries +
                   static_cast<uint32_t>(warp) * EncoderQueries<kBucket>::kStagedBytes);
  EncoderSums<kBucket> sums;
  sums.Clear();
  uint32_t exponent = 0;
  for (int slot = 0; slot < sequence.num_rows; slot += kTileSlots) {
    const float unit =
        task.scale * Unit(LoadTile<kBucket>(task, sequence, slot, shared, &exponent, &sums));
    const int last = sequence.num_rows - slot - 1;
    uint32_t weights[kTilePages][4];
    WeighTile(queries, RowKeys<kBucket>(SharedAddress(shared)),
              {queries.scale[0] * unit, queries.scale[1] * unit}, {last, last}, weights, &sums);
#pragma unroll
    for (int page = 0; page < kTilePages; ++page) {
      sums.template Add<HalfPairs, kBucket>(
          weights[page], SharedAddress(shared) + TileLayout<kBucket>::kBytes, page, 0, 1);
    }
  }
  WriteRows<kBucket>(task, sums, Unit(exponent), out);
}

template <int kBucket>
void LaunchEncoder(Tape* tape, const EncoderTask& task, const DeviceSequences& sequences,
                   int64_t num_heads) {
  Launch(tape, &EncoderKernel<kBucket>,
         {CeilDiv(sequences.max_rows, kWarps<kBucket> * kTileRows),
          static_cast<uint32_t>(num_heads), static_cast<uint32_t>(sequences.num_sequences)},
         {kWarps<kBucket> * kWarpLanes, 1, 1}, {EncoderShared<kBucket>::kBytes, true}, task);
}

}  // namespace

void TiledEncoderAttention(Tape* tape, const Activations& q, const Activations& k,
                           const Activations& v, const DeviceSequences& sequences,
                           int64_t num_heads, float scale, const Activations& out) {
  constexpr float kLog2E = 1.44269504f;
  const EncoderTask task = {sequences.sequences,
                            q.data,
                            k.data,
                            v.data,
                            out.data,
                            q.stride,
                            k.stride,
                            v.stride,
                            out.stride,
                            scale * kLog2E,
                            static_cast<int32_t>(q.cols / num_heads)};
  if (task.head_dim <= 64) return LaunchEncoder<64>(tape, task, sequences, num_heads);
  if (task.head_dim <= 128) return LaunchEncoder<128>(tape, task, sequences, num_heads);
  LaunchEncoder<256>(tape, task, sequences, num_heads);
}

}  // namespace nibble::cuda
