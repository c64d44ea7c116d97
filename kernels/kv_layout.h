// Where keys and values live: fixed-size pages of kPageSlots positions, granted by the engine's
// page pool.
//
//   cache  := layer[num_layers]          one allocation, backend memory
//   layer  := page[num_pages]
//   page   := head[num_kv_heads]
//   head   := K[head_dim][kPageSlots] V[kPageSlots][head_dim]      in the cache's dtype
//
// K is transposed so that one key component of all slots is one vector: scores need no horizontal
// sums.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace nibble {

inline constexpr int64_t kPageSlots = 16;

struct KvCache {
  void* data = nullptr;
  DType dtype = DType::kF16;
  int64_t num_layers = 0;
  int64_t num_pages = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;

  // Bytes of one page in one layer.
  int64_t LayerPageBytes() const {
    return 2 * num_kv_heads * head_dim * kPageSlots * SizeOf(dtype);
  }
  // Bytes of one page over all layers: what granting a page costs.
  int64_t PageBytes() const { return num_layers * LayerPageBytes(); }
  int64_t Bytes() const { return num_pages * PageBytes(); }
};

// The consecutive rows of one sequence in a step, and the pages that hold its positions.
// Rows first_row … first_row+num_rows-1 are positions start … start+num_rows-1.
struct SequenceRows {
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t start = 0;
  const int32_t* pages = nullptr;  // page of position p is pages[p / kPageSlots]; null for encoders
};

}  // namespace nibble
