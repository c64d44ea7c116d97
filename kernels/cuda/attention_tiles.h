// Attention of one warp on the tensor cores: 16 query rows against tiles of 64 keys that lie in
// shared memory in 16 bits. A lane holds two of the rows, g = lane / 4 and g + 8, and of each the
// columns that mma.m16n8k16 gives it (2t, 2t + 1 of every 8; t = lane % 4).
//
// What a row's numbers are, whichever kernel computes them, so that they do not depend on the rows
// beside it: tiles of 64 keys at absolute positions; in a tile scores sum over d ascending, 16 at a
// time; the largest score so far is taken off; weights e are rounded to 16 bits; the sums Σe·V and
// Σe (one more column of V, all ones) add 16 keys at a time, ascending. Splits of tiles
// (attention_pages.h) are added in order by MergeValue.
#pragma once

#include "kernels/cuda/attention_queries.h"
#include "kernels/cuda/attention_sums.h"

namespace nibble::cuda {

// s += 16 rows against kPages · 16 keys, d ascending.
template <typename Pairs, int kBucket, int kPages, bool kStaged, typename Keys>
__device__ __forceinline__ void Score(const Queries<Pairs, kBucket, kStaged>& queries,
                                      const Keys& keys, float (&s)[kPages][2][4]) {
#pragma unroll
  for (int step = 0; step < kBucket / 16; ++step) {
    uint32_t q[4];
    queries.Fragment(step, q);
#pragma unroll
    for (int page = 0; page < kPages; ++page) {
      uint32_t k[4];
      keys.Load(page, step, k);
      Pairs::Mma(s[page][0], q, {k[0], k[1]});
      Pairs::Mma(s[page][1], q, {k[2], k[3]});
    }
  }
}

// Scores of 16 keys in units of log2, and -inf for those past the row's `last` key (counted from
// the first of these 16).
__device__ __forceinline__ void ScaleAndMask(const float (&scale)[2], const int (&last)[2],
                                             float (&s)[2][4]) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = 8 * half + 2 * t + i % 2;
      s[half][i] = key <= last[i / 2] ? s[half][i] * scale[i / 2] : -INFINITY;
    }
  }
}

// Raises `largest` by the lane's own columns of 16 keys.
__device__ __forceinline__ void Raise(const float (&s)[2][4], float (&largest)[2]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float a = fmaxf(s[0][2 * row], s[0][2 * row + 1]);
    const float b = fmaxf(s[1][2 * row], s[1][2 * row + 1]);
    largest[row] = fmaxf(largest[row], fmaxf(a, b));
  }
}
// The largest of a row's four lanes.
__device__ __forceinline__ float RowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// 2^(s - largest) of 16 keys, rounded, as an A fragment. A row without any key yet has -inf.
template <typename Pairs>
__device__ __forceinline__ void Weigh(const float (&s)[2][4], const float (&largest)[2],
                                      uint32_t (&weights)[4]) {
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const int row = part % 2;
    const float base = largest[row] == -INFINITY ? 0.0f : largest[row];
    weights[part] =
        Pairs::Pack(Exp2(s[part / 2][2 * row] - base), Exp2(s[part / 2][2 * row + 1] - base));
  }
}

// One tile's weights of a warp's rows; sums take their base. last: the last key of the tile that a
// row sees. scale: of the scores, in units of log2.
template <typename Pairs, int kBucket, bool kStaged, typename Keys>
__device__ __forceinline__ void WeighTile(const Queries<Pairs, kBucket, kStaged>& queries,
                                          const Keys& keys, const float (&scale)[2],
                                          const int (&last)[2], uint32_t (&weights)[kTilePages][4],
                                          RowSums<kBucket / 16>* sums) {
  float s[kTilePages][2][4] = {};
  Score(queries, keys, s);
  float own[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int page = 0; page < kTilePages; ++page) {
    ScaleAndMask(scale, {last[0] - page * kSlots, last[1] - page * kSlots}, s[page]);
    Raise(s[page], own);
  }
  const float raised[2] = {fmaxf(sums->largest[0], RowMax(own[0])),
                           fmaxf(sums->largest[1], RowMax(own[1]))};
  sums->Rebase(raised);
#pragma unroll
  for (int page = 0; page < kTilePages; ++page) Weigh<Pairs>(s[page], raised, weights[page]);
}

}  // namespace nibble::cuda
