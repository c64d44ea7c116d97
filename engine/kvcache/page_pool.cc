// A free list and the vectors that borrow from it.
#include "engine/kvcache/page_pool.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"

namespace nibble {

PagePool::PagePool(int64_t num_pages) : num_pages_(num_pages) {
  Check(num_pages >= 0 && num_pages <= INT32_MAX, "a pool's page ids fit 31 bits");
  free_.reserve(static_cast<size_t>(num_pages));
  for (int64_t id = num_pages - 1; id >= 0; --id) free_.push_back(static_cast<int32_t>(id));
}

PagePool::~PagePool() { Check(num_free() == num_pages_, "every page is back when its pool dies"); }

PageTable::PageTable(PageTable&& other) noexcept
    : pool_(other.pool_), pages_(std::exchange(other.pages_, {})) {}

PageTable& PageTable::operator=(PageTable&& other) noexcept {
  Clear();
  pool_ = other.pool_;
  pages_ = std::exchange(other.pages_, {});
  return *this;
}

int64_t PageTable::Missing(int64_t positions) const {
  return std::max<int64_t>(0, PagesFor(positions) - size());
}

bool PageTable::TryGrow(int64_t positions) {
  const int64_t missing = Missing(positions);
  if (missing > pool_->num_free()) return false;
  for (int64_t i = 0; i < missing; ++i) {
    pages_.push_back(pool_->free_.back());
    pool_->free_.pop_back();
  }
  return true;
}

void PageTable::Clear() {
  // Backwards, so that the next owner gets them in the same order.
  while (!pages_.empty()) {
    pool_->free_.push_back(pages_.back());
    pages_.pop_back();
  }
}

}  // namespace nibble
