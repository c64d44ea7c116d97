// Device memory and page-locked memory of the pretended machine: allocations that end at a page
// that cannot be touched, hold NaN at first, and are looked at when they are freed. Thread rule:
// the caller's lock (fake_runtime.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <utility>

namespace nibble::cuda::fake {

class GuardedMemory {
 public:
  // 256-aligned, filled with `fill`; null if the machine has none.
  void* Allocate(int64_t bytes, int fill);
  // False if it is none of ours; aborts if something wrote around it.
  bool Free(void* pointer);
  // Whether [pointer, pointer + bytes) lies in one allocation.
  bool Holds(const void* pointer, int64_t bytes) const;
  // Whether the pointer lies in an allocation or in the slack around one.
  bool Near(const void* pointer) const;

  // Lately: touching it is a memory fault.
  bool WasFreed(const void* pointer) const;

  int64_t live_bytes() const { return live_bytes_; }
  int64_t peak_bytes() const { return peak_bytes_; }
  int64_t count() const { return static_cast<int64_t>(allocations_.size()); }

 private:
  struct Allocation {
    char* mapping;  // guard page, room, guard page
    size_t room;
    int64_t bytes;
  };
  // Nothing else takes the place of what was freed lately, so its use shows.
  void Retire(char* mapping, size_t bytes);

  std::map<const char*, Allocation> allocations_;  // by where they begin
  std::deque<std::pair<char*, size_t>> retired_;
  int64_t live_bytes_ = 0;
  int64_t peak_bytes_ = 0;
};

}  // namespace nibble::cuda::fake
