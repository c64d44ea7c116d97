// The pages of one model's KV cache: a fixed number, each free or owned by one page table. Knows no
// memory and no tokens, only page ids.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kv_layout.h"

namespace nibble {

class PageTable;

// Thread rule: the engine thread. Outlives its tables.
// 1. Every page is in the free list or in exactly one table.
// 2. The page that was given back last is granted first (it is the warmest).
class PagePool {
 public:
  explicit PagePool(int64_t num_pages);
  ~PagePool();  // every page must be back

  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  int64_t num_pages() const { return num_pages_; }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_used() const { return num_pages_ - num_free(); }

 private:
  friend class PageTable;
  const int64_t num_pages_;
  std::vector<int32_t> free_;
};

// The pages of one sequence in the order of its positions: position p lives in pages()[p / 16].
// Gives them back when it dies. Move-only.
class PageTable {
 public:
  explicit PageTable(PagePool* pool) : pool_(pool) {}
  PageTable(PageTable&& other) noexcept;
  PageTable& operator=(PageTable&& other) noexcept;
  ~PageTable() { Clear(); }

  static int64_t PagesFor(int64_t positions) { return (positions + kPageSlots - 1) / kPageSlots; }

  // Pages still wanted before `positions` positions have a place.
  int64_t Missing(int64_t positions) const;
  // Takes what is missing, or nothing. False: the pool has too few.
  bool TryGrow(int64_t positions);
  void Clear();

  int64_t size() const { return static_cast<int64_t>(pages_.size()); }
  const int32_t* pages() const { return pages_.data(); }

 private:
  PagePool* pool_;
  std::vector<int32_t> pages_;
};

}  // namespace nibble
