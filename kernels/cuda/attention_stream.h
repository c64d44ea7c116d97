// Pages of keys and values to shared memory, some tiles ahead of whoever reads them there.
#pragma once

#include "kernels/cuda/attention_layout.h"

namespace nibble::cuda {

// A sequence's keys and values of one head on their way to shared memory: a ring of kParts parts,
// part 2i being the keys of tile i and part 2i + 1 its values. All threads of the block copy.
template <int kBucket, int kParts, int kWarps>
class PageStream {
 public:
  using Layout = TileLayout<kBucket>;
  static constexpr uint32_t kBytes = kParts * Layout::kBytes;

  // Slots begin … end - 1, begin a multiple of 64.
  __device__ PageStream(const CacheView& cache, char* ring, int sequence, int head, int begin,
                        int end)
      : cache_(cache),
        ring_(SharedAddress(ring)),
        sequence_(sequence),
        keys_(static_cast<int64_t>(head) * 4 * kSlots * cache.head_dim),
        begin_(begin + Page() * kSlots),
        end_(end),
        upcoming_(Lookup(0)) {
    if (cache.head_dim != kBucket) FillWithZeros(ring, kBytes);
  }

  // Shared address of a part.
  __device__ uint32_t Part(int part) const {
    return ring_ + static_cast<uint32_t>(part % kParts) * Layout::kBytes;
  }
  // Begins to copy a part; each part once, ascending. Parts past the end are empty.
  __device__ void Issue(int part) {
    static_assert(kWarps % kTilePages == 0);
    constexpr int kShare = kWarps / kTilePages;
    const int warp = static_cast<int>(threadIdx.x) / kWarpLanes / kTilePages;
    const int slot = begin_ + part / 2 * kTileSlots;
    const uint32_t to = Part(part) + static_cast<uint32_t>(Page()) * Layout::kPageBytes;
    if (part % 2 == 0) {
      page_ = upcoming_;
      upcoming_ = Lookup(slot - begin_ + kTileSlots);
      if (slot < end_) {
        CopyKeys<kBucket, kShare>(to, page_ + keys_, cache_.head_dim, end_ - slot, warp);
      }
    } else if (slot - Page() * kSlots < end_) {
      CopyValues<kBucket, kShare>(to, page_ + keys_ + 2 * kSlots * cache_.head_dim, cache_.head_dim,
                                  end_ - slot, warp);
    }
    CopyAsyncCommit();
  }
  // Part `part` has arrived, for all threads; and all threads are done with the part before it.
  __device__ void Await() {
    CopyAsyncWait<kParts - 2>();
    __syncthreads();
  }

 private:
  // The page of a tile that this thread copies.
  static __device__ int Page() { return static_cast<int>(threadIdx.x) / kWarpLanes % kTilePages; }
  // Looked up a tile ahead: the table's latency hides behind the tile before.
  __device__ const char* Lookup(int offset) const {
    const int slot = begin_ + offset;
    return slot < end_ ? PageOf(cache_, sequence_, slot / kSlots) : cache_.layer;
  }

  const CacheView& cache_;
  uint32_t ring_;
  int sequence_;
  int64_t keys_;  // offset of the head in a page
  int begin_;     // of this thread's pages
  int end_;
  const char* upcoming_;
  const char* page_ = nullptr;
};

}  // namespace nibble::cuda
