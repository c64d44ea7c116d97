// What a warp sums over keys for its 16 rows, and how the sums of two splits become one.
#pragma once

#include "kernels/cuda/attention_layout.h"

namespace nibble::cuda {

// What a warp has summed of its 16 rows: kColumns columns of 16 values of d, and the weights.
template <int kColumns>
struct RowSums {
  float largest[2];
  float weights[4];  // the column of ones: [0] and [2] count
  float values[2 * kColumns][4];

  __device__ __forceinline__ void Clear() {
    Clear(0);
    Clear(1);
  }
  __device__ __forceinline__ void Clear(int row) {
    largest[row] = -INFINITY;
    weights[2 * row] = weights[2 * row + 1] = 0;
#pragma unroll
    for (int i = 0; i < 2 * kColumns; ++i) values[i][2 * row] = values[i][2 * row + 1] = 0;
  }
  // Takes `raised` (>= largest) as the new base of the weights.
  __device__ __forceinline__ void Rebase(const float (&raised)[2]) {
    float shrink[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      shrink[row] = largest[row] == -INFINITY ? 0.0f : Exp2(largest[row] - raised[row]);
      largest[row] = raised[row];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[i] *= shrink[i / 2];
#pragma unroll
    for (int n = 0; n < 2 * kColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[n][i] *= shrink[i / 2];
    }
  }
  // Adds the 16 keys of a page of the values at `shared`; columns column, column + step, …
  template <typename Pairs, int kBucket>
  __device__ __forceinline__ void Add(const uint32_t (&a)[4], uint32_t shared, int page, int column,
                                      int step) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    const uint32_t row = shared + TileLayout<kBucket>::RowChunk(lane % 16, lane / 16);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int d16 = column + i * step;
      uint32_t v[4];
      LoadMatrix4Transposed(v, TileLayout<kBucket>::RowMatrix(row, page, d16));
      Pairs::Mma(values[2 * i], a, {v[0], v[1]});
      Pairs::Mma(values[2 * i + 1], a, {v[2], v[3]});
    }
    Pairs::Mma(weights, a, {Pairs::kOnes, Pairs::kOnes});
  }
};

// The lane's values of a row: fn(d, value of d, value of d + 1). Columns as in RowSums::Add.
template <int kColumns, typename Fn>
__device__ __forceinline__ void ForValues(const RowSums<kColumns>& sums, int row, int head_dim,
                                          int column, int step, const Fn& fn) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int n = 0; n < 2 * kColumns; ++n) {
    const int d = 16 * (column + n / 2 * step) + 8 * (n % 2) + 2 * t;
    if (d < head_dim) fn(d, sums.values[n][2 * row], sums.values[n][2 * row + 1]);
  }
}

// Two splits' sums have their own bases; these bring them to a common one.
struct Bases {
  float largest;
  float first;   // what the earlier sums are multiplied by
  float second;  // the later ones
};
__device__ __forceinline__ Bases CommonBase(float first, float second) {
  const float largest = fmaxf(first, second);
  return {largest, exp2f(first - largest), exp2f(second - largest)};
}
__device__ __forceinline__ float MergeValue(const Bases& bases, float first, float second) {
  return fmaf(second, bases.second, first * bases.first);
}

}  // namespace nibble::cuda
