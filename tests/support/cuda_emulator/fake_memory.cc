#include "tests/support/cuda_emulator/fake_memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace nibble::cuda::fake {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 256;
constexpr unsigned char kAround = 0xff;

size_t RoundUp(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

// Where the first byte is that is not as it was made; null if all are.
const char* FirstTouched(const char* begin, const char* end) {
  for (; begin < end; ++begin) {
    if (static_cast<unsigned char>(*begin) != kAround) return begin;
  }
  return nullptr;
}

}  // namespace

void* GuardedMemory::Allocate(int64_t bytes, int fill) {
  const size_t padded = RoundUp(bytes > 0 ? static_cast<size_t>(bytes) : 1, kAlignment);
  const size_t room = RoundUp(padded, kPage);
  void* const memory = mmap(nullptr, room + 2 * kPage, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  char* const mapping = static_cast<char*>(memory);
  if (mprotect(mapping + kPage, room, PROT_READ | PROT_WRITE) != 0) {
    munmap(memory, room + 2 * kPage);
    return nullptr;
  }
  // As near to the guard page behind it as the alignment permits.
  char* const begin = mapping + kPage + room - padded;
  std::memset(mapping + kPage, kAround, static_cast<size_t>(begin - (mapping + kPage)));
  std::memset(begin, fill, static_cast<size_t>(bytes));
  std::memset(begin + bytes, kAround, padded - static_cast<size_t>(bytes));
  allocations_[begin] = {mapping, room, bytes};
  live_bytes_ += bytes;
  if (live_bytes_ > peak_bytes_) peak_bytes_ = live_bytes_;
  return begin;
}

bool GuardedMemory::Free(void* pointer) {
  const auto found = allocations_.find(static_cast<const char*>(pointer));
  if (found == allocations_.end()) return false;
  const Allocation& allocation = found->second;
  const char* const begin = found->first;
  const char* touched = FirstTouched(allocation.mapping + kPage, begin);
  if (touched == nullptr) {
    touched = FirstTouched(begin + allocation.bytes, allocation.mapping + kPage + allocation.room);
  }
  if (touched != nullptr) {
    std::fprintf(stderr,
                 "CUDA emulator: something wrote at byte %lld of an allocation of %lld bytes\n",
                 static_cast<long long>(touched - begin), static_cast<long long>(allocation.bytes));
    std::abort();
  }
  live_bytes_ -= allocation.bytes;
  Retire(allocation.mapping, allocation.room + 2 * kPage);
  allocations_.erase(found);
  return true;
}

void GuardedMemory::Retire(char* mapping, size_t bytes) {
  constexpr size_t kMostRetired = 256;
  // The same addresses without memory behind them.
  mmap(mapping, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  retired_.emplace_back(mapping, bytes);
  if (retired_.size() <= kMostRetired) return;
  munmap(retired_.front().first, retired_.front().second);
  retired_.pop_front();
}

bool GuardedMemory::Holds(const void* pointer, int64_t bytes) const {
  const char* const at = static_cast<const char*>(pointer);
  auto found = allocations_.upper_bound(at);
  if (found == allocations_.begin()) return false;
  --found;
  return at - found->first <= found->second.bytes &&
         bytes <= found->second.bytes - (at - found->first);
}

bool GuardedMemory::WasFreed(const void* pointer) const {
  const char* const at = static_cast<const char*>(pointer);
  for (const auto& [mapping, bytes] : retired_) {
    if (at >= mapping && at < mapping + bytes) return true;
  }
  return false;
}

bool GuardedMemory::Near(const void* pointer) const {
  const char* const at = static_cast<const char*>(pointer);
  const auto near = [&](const auto& found) {
    const Allocation& allocation = found->second;
    return at >= allocation.mapping && at < allocation.mapping + allocation.room + 2 * kPage;
  };
  const auto above = allocations_.upper_bound(at);
  if (above != allocations_.end() && near(above)) return true;
  return above != allocations_.begin() && near(std::prev(above));
}

}  // namespace nibble::cuda::fake
