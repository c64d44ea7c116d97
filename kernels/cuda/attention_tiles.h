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

#include "kernels/cuda/attention_pages.h"

namespace nibble::cuda {

inline constexpr int kTileRows = 16;
inline constexpr int kTilePages = kTileSlots / kSlots;
inline constexpr int kWarpLanes = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

// The 16-bit types: pairs and products.
struct HalfPairs {
  static constexpr uint32_t kOnes = 0x3c003c00;
  static __device__ __forceinline__ uint32_t Pack(float a, float b) { return PackHalf(a, b); }
  static __device__ __forceinline__ void Mma(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
    MmaHalf(d, a, b);
  }
};
struct Bf16Pairs {
  static constexpr uint32_t kOnes = 0x3f803f80;
  static __device__ __forceinline__ uint32_t Pack(float a, float b) { return PackBf16(a, b); }
  static __device__ __forceinline__ void Mma(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
    MmaBf16(d, a, b);
  }
};

// A tile's keys, or its values, in shared memory. Rows of 16 bytes ("chunks") are permuted so that
// the eight rows of a matrix that ldmatrix reads lie in different banks.
//   transposed keys := page[4], page := chunk[2·kBucket]      chunk 2d + h: K[d] of slots 8h …
//   rows            := slot[64], slot := chunk[kBucket / 8]   chunk j: d = 8j …
// kBucket: head_dim rounded up to 64, 128 or 256.
template <int kBucket>
struct TileLayout {
  static constexpr uint32_t kBytes = kTileSlots * kBucket * 2;
  static constexpr uint32_t kPageBytes = kSlots * kBucket * 2;

  static __device__ __forceinline__ uint32_t KeyChunk(int chunk) {
    return static_cast<uint32_t>(chunk ^ (chunk >> 3 & 1)) * 16;
  }
  static __device__ __forceinline__ uint32_t RowChunk(int slot, int chunk) {
    return static_cast<uint32_t>(slot * (kBucket / 8) + (chunk ^ (slot & 7))) * 16;
  }
  // 16 slots and 16 values of d further per page and column, from the address of a row's chunk 0 or
  // 1 in the tile's first page. Tiles are aligned to 128 bytes.
  static __device__ __forceinline__ uint32_t RowMatrix(uint32_t row, int page, int column) {
    return (row ^ static_cast<uint32_t>(column % 4) * 32) +
           static_cast<uint32_t>(column / 4) * 128 + static_cast<uint32_t>(page) * kPageBytes;
  }
};

// --- from pages to shared memory, 16 bytes at a time; what lies past `slots` becomes zeros ---

// Keys share chunks with slots that were never written; whoever reads them masks them.
template <int kBucket>
__device__ __forceinline__ void CopyKeys(uint32_t shared, const char* keys, int head_dim, int slots,
                                         int first, int step) {
  for (int chunk = first; chunk < 2 * head_dim; chunk += step) {
    CopyAsync16(shared + TileLayout<kBucket>::KeyChunk(chunk), keys + chunk * 16,
                (chunk & 1) * 8 < slots);
  }
}

template <int kBucket>
__device__ __forceinline__ void CopyValues(uint32_t shared, const char* values, int head_dim,
                                           int slots, int first, int step) {
  const int row_chunks = head_dim / 8;
  for (int chunk = first; chunk < kSlots * row_chunks; chunk += step) {
    const int slot = chunk / row_chunks;
    CopyAsync16(shared + TileLayout<kBucket>::RowChunk(slot, chunk % row_chunks),
                values + chunk * 16, slot < slots);
  }
}

// --- queries ---

// 2^e with 1 <= x / 2^e < 2, as a float's exponent bits; kept where both powers are normal.
__device__ __forceinline__ uint32_t ExponentBits(float x) {
  const uint32_t bits = BitsOf(x) >> 23 & 0xff;
  return bits < 27 ? 27u : bits > 227 ? 227u : bits;
}
__device__ __forceinline__ float PowerOf(uint32_t exponent_bits) {
  return FloatOf(exponent_bits << 23);
}
__device__ __forceinline__ float OneOver(uint32_t exponent_bits) {
  return FloatOf((254 - exponent_bits) << 23);
}

// The lane's rows as A fragments, each row divided by a power of two that `scale` gives back, so
// that fp16 neither overflows nor loses small rows. kStaged: they wait in shared memory (16 bytes a
// lane and 16 d), where registers would not be enough.
template <typename Pairs, int kBucket, bool kStaged = false>
struct Queries {
  static constexpr int kSteps = kBucket / 16;
  static constexpr uint32_t kStagedBytes = kStaged ? kSteps * kWarpLanes * 16 : 0;  // of a warp

  float scale[2];
  uint4* staged;  // the lane's
  uint32_t a[kStaged ? 1 : kSteps][4];

  // rows: null for a row that does not exist; it becomes zeros, as do steps past head_dim. shared:
  // the warp's, if kStaged.
  __device__ void Load(const float* const (&rows)[2], int head_dim, char* shared) {
    staged = reinterpret_cast<uint4*>(shared) + threadIdx.x % kWarpLanes;
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t exponent = ExponentBits(Largest(rows[h], head_dim));
      scale[h] = PowerOf(exponent);
      inverse[h] = OneOver(exponent);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t to[4];
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const float* row = rows[part % 2];
        const int d = 16 * step + 8 * (part / 2) + static_cast<int>(threadIdx.x) % 4 * 2;
        to[part] = 0;
        if (row != nullptr && d < head_dim) {
          to[part] = Pairs::Pack(row[d] * inverse[part % 2], row[d + 1] * inverse[part % 2]);
        }
      }
      if (kStaged) {
        staged[step * kWarpLanes] = {to[0], to[1], to[2], to[3]};
      } else {
        for (int part = 0; part < 4; ++part) a[step][part] = to[part];
      }
    }
  }
  __device__ __forceinline__ void Fragment(int step, uint32_t (&to)[4]) const {
    if (kStaged) {
      const uint4 q = staged[step * kWarpLanes];
      to[0] = q.x, to[1] = q.y, to[2] = q.z, to[3] = q.w;
    } else {
      for (int part = 0; part < 4; ++part) to[part] = a[step][part];
    }
  }

 private:
  // Of a row that four lanes share.
  static __device__ float Largest(const float* row, int head_dim) {
    float largest = 0;
    const int t = static_cast<int>(threadIdx.x) % 4;
    for (int d = 4 * t; row != nullptr && d < head_dim; d += 16) {
      for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(row[d + i]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    return fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  }
};

// --- scores ---

// The lane's part of 16 keys × 16 values of d (d = 16·step …): of transposed pages at `shared`.
template <int kBucket>
class PageKeys {
 public:
  explicit __device__ __forceinline__ PageKeys(uint32_t shared) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    const int d = lane / 8 % 2 * 8 + lane % 8;
    lane_ = shared + TileLayout<kBucket>::KeyChunk(2 * d + lane / 16);
  }
  __device__ __forceinline__ void Load(int page, int step, uint32_t (&keys)[4]) const {
    LoadMatrix4Transposed(keys, lane_ + static_cast<uint32_t>(step) * 512 +
                                    static_cast<uint32_t>(page) * TileLayout<kBucket>::kPageBytes);
  }

 private:
  uint32_t lane_;
};
// The same of keys in rows.
template <int kBucket>
class RowKeys {
 public:
  explicit __device__ __forceinline__ RowKeys(uint32_t shared) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    lane_ = shared + TileLayout<kBucket>::RowChunk(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  }
  __device__ __forceinline__ void Load(int page, int step, uint32_t (&keys)[4]) const {
    LoadMatrix4(keys, TileLayout<kBucket>::RowMatrix(lane_, page, step));
  }

 private:
  uint32_t lane_;
};

// s += 16 rows against kPages · 16 keys, d ascending.
template <typename Pairs, int kBucket, int kPages, bool kStaged, typename Keys>
__device__ __forceinline__ void Score(const Queries<Pairs, kBucket, kStaged>& queries,
                                      const Keys& keys, int head_dim, float (&s)[kPages][2][4]) {
#pragma unroll
  for (int step = 0; step < kBucket / 16; ++step) {
    if (16 * step >= head_dim) break;
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

// --- weights and sums ---

// 2^(s - largest) of 16 keys, rounded, as an A fragment. A row without any key yet has -inf.
template <typename Pairs>
__device__ __forceinline__ void Weigh(const float (&s)[2][4], const float (&largest)[2],
                                      uint32_t (&weights)[4]) {
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const int row = part % 2;
    const float base = largest[row] == -INFINITY ? 0.0f : largest[row];
    weights[part] =
        Pairs::Pack(exp2f(s[part / 2][2 * row] - base), exp2f(s[part / 2][2 * row + 1] - base));
  }
}

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
      shrink[row] = largest[row] == -INFINITY ? 0.0f : exp2f(largest[row] - raised[row]);
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
  // Adds the 16 keys of a page of the values at `shared`; columns column, column + step, … of those
  // below head_dim.
  template <typename Pairs, int kBucket>
  __device__ __forceinline__ void Add(const uint32_t (&a)[4], uint32_t shared, int page,
                                      int head_dim, int column, int step) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    const uint32_t row = shared + TileLayout<kBucket>::RowChunk(lane % 16, lane / 16);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int d16 = column + i * step;
      if (16 * d16 >= head_dim) break;
      uint32_t v[4];
      LoadMatrix4Transposed(v, TileLayout<kBucket>::RowMatrix(row, page, d16));
      Pairs::Mma(values[2 * i], a, {v[0], v[1]});
      Pairs::Mma(values[2 * i + 1], a, {v[2], v[3]});
    }
    Pairs::Mma(weights, a, {Pairs::kOnes, Pairs::kOnes});
  }
};

// One tile's weights of a warp's rows; sums take their base. last: the last key of the tile that a
// row sees. scale: of the scores, in units of log2.
template <typename Pairs, int kBucket, bool kStaged, typename Keys>
__device__ __forceinline__ void WeighTile(const Queries<Pairs, kBucket, kStaged>& queries,
                                          const Keys& keys, int head_dim, const float (&scale)[2],
                                          const int (&last)[2], uint32_t (&weights)[kTilePages][4],
                                          RowSums<kBucket / 16>* sums) {
  float s[kTilePages][2][4] = {};
  Score(queries, keys, head_dim, s);
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

// --- splits ---

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
