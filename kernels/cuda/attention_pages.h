// How the attention kernels find keys and values in the cache's pages, in which type, and where
// sums over keys split. Knows no launch.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/sequences.h"
#include "kernels/kv_layout.h"

namespace nibble::cuda {

inline constexpr int kSlots = static_cast<int>(kPageSlots);

__host__ __device__ __forceinline__ int Least(int a, int b) { return a < b ? a : b; }

// One layer of a cache, and the pages of a step's sequences. Plain data without padding.
struct CacheView {
  char* layer = nullptr;
  const int32_t* pages = nullptr;  // DeviceSequences::pages
  int64_t page_bytes = 0;          // of one page in one layer
  int32_t page_stride = 0;
  int32_t head_dim = 0;
};

inline CacheView ViewOf(const KvCache& cache, const DeviceSequences& sequences, int64_t layer) {
  return {static_cast<char*>(cache.data) + layer * cache.num_pages * cache.LayerPageBytes(),
          sequences.pages, cache.LayerPageBytes(), sequences.page_stride,
          static_cast<int32_t>(cache.head_dim)};
}

// The page of a sequence's positions 16·index …
__device__ __forceinline__ char* PageOf(const CacheView& cache, int sequence, int index) {
  const int64_t entry = static_cast<int64_t>(sequence) * cache.page_stride + index;
  return cache.layer + cache.pages[entry] * cache.page_bytes;
}

// The cache's types: what a value is stored as.
struct StoredFloat {
  using Bits = float;
  static __device__ __forceinline__ Bits Round(float x) { return x; }
  static __device__ __forceinline__ float Read(Bits x) { return x; }
};
struct StoredHalf {
  using Bits = uint16_t;
  static __device__ __forceinline__ Bits Round(float x) { return FloatToHalf(x); }
  static __device__ __forceinline__ float Read(Bits x) { return HalfToFloat(x); }
};
struct StoredBf16 {
  using Bits = uint16_t;
  static __device__ __forceinline__ Bits Round(float x) { return FloatToBf16(x); }
  static __device__ __forceinline__ float Read(Bits x) { return Bf16ToFloat(x); }
};

// fn(StoredFloat{}), fn(StoredHalf{}) or fn(StoredBf16{}).
template <typename Fn>
void WithStored(DType dtype, const Fn& fn) {
  if (dtype == DType::kF32) return fn(StoredFloat{});
  if (dtype == DType::kF16) return fn(StoredHalf{});
  fn(StoredBf16{});
}

// The tensor cores' kernels take keys in tiles of 64 and sum them in splits, at most 32 for one
// row. How long a split is depends on nothing but how many positions the row sees.
inline constexpr int kTileSlots = 64;
inline constexpr int kSplitSlots = 256;
inline constexpr int kMaxSplits = 32;

__host__ __device__ __forceinline__ int SplitSlots(int context) {
  int slots = kSplitSlots;
  while (slots < (context + kMaxSplits - 1) / kMaxSplits) slots *= 2;
  return slots;
}
// The most splits of a row that sees at most so many positions.
inline int64_t MostSplits(int64_t context) {
  const int64_t splits = (context + kSplitSlots - 1) / kSplitSlots;
  return splits < kMaxSplits ? splits : kMaxSplits;
}

}  // namespace nibble::cuda
