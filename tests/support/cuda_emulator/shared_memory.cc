// A block's dynamic shared memory: ends at a guard page, is poisoned before each block, and its
// surroundings are looked at after it.
#include <sys/mman.h>

#include <cstring>

#include "tests/support/cuda_emulator/block.h"

namespace nibble::cuda::emulator {
namespace {

constexpr size_t kArenaBytes = 256 * 1024;
constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 1024;
constexpr unsigned char kPoison = 0xff;  // NaN in fp32, fp16 and bf16
// Shared addresses do not begin at 0, as on a card.
constexpr uint32_t kFirstAddress = 1024;

// One arena for each block that can run at a time.
char* MakeArena() {
  void* const memory = mmap(nullptr, kArenaBytes + 2 * kPage, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED ||
      mprotect(static_cast<char*>(memory) + kPage, kArenaBytes, PROT_READ | PROT_WRITE) != 0) {
    Die("no memory for shared memory");
  }
  std::memset(static_cast<char*>(memory) + kPage, kPoison, kArenaBytes);
  return static_cast<char*>(memory) + kPage;
}

// What is watched for writes before a block's shared memory.
char* BeforeShared(const Block& block) {
  return block.shared - block.arena > static_cast<ptrdiff_t>(kAlignment) ? block.shared - kAlignment
                                                                         : block.arena;
}

bool Untouched(const char* begin, const char* end) {
  for (; begin < end; ++begin) {
    if (static_cast<unsigned char>(*begin) != kPoison) return false;
  }
  return true;
}

}  // namespace

void BeginShared(Block& block, uint32_t bytes) {
  if (block.arena == nullptr) block.arena = MakeArena();
  const size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  block.shared_bytes = bytes;
  block.shared = block.arena + kArenaBytes - room;
  char* const before = BeforeShared(block);
  std::memset(before, kPoison, static_cast<size_t>(block.arena + kArenaBytes - before));
  block.async_fence = false;
  block.async_shared.clear();
}

void EndShared(Block& block) {
  const char* const end = block.arena + kArenaBytes;
  if (!Untouched(block.shared + block.shared_bytes, end)) {
    Die("the block wrote past its %u bytes of shared memory", block.shared_bytes);
  }
  if (!Untouched(BeforeShared(block), block.shared)) {
    Die("the block wrote before its shared memory");
  }
}

char* SharedBegin() { return Running().shared; }

uint32_t SharedOffset(const void* pointer) {
  const Block& block = Running();
  const ptrdiff_t offset = static_cast<const char*>(pointer) - block.shared;
  if (offset < 0 || offset > static_cast<ptrdiff_t>(block.shared_bytes)) {
    Die("SharedAddress of %p, which is not in shared memory", pointer);
  }
  return kFirstAddress + static_cast<uint32_t>(offset);
}

char* SharedAt(const char* what, uint32_t address, uint32_t bytes, uint32_t alignment) {
  const Block& block = Running();
  if (address < kFirstAddress || address - kFirstAddress + uint64_t{bytes} > block.shared_bytes) {
    Die("%s: %u bytes at shared offset %lld, the block has %u", what, bytes,
        static_cast<long long>(address) - kFirstAddress, block.shared_bytes);
  }
  if (address % alignment != 0) {
    Die("%s: shared offset %u is not a multiple of %u", what, address - kFirstAddress, alignment);
  }
  return block.shared + (address - kFirstAddress);
}

void CheckAlignment(const char* what, const void* global, uint32_t alignment) {
  if (reinterpret_cast<uintptr_t>(global) % alignment != 0) {
    Die("%s: address %p is not a multiple of %u", what, global, alignment);
  }
}

char* AsyncShared(Block& block) {
  if (block.async_shared.empty()) {
    block.async_shared.assign(block.shared_bytes, static_cast<char>(kPoison));
  }
  return block.async_shared.data();
}

void FenceAsyncProxy() { Running().async_fence = true; }

void TakeSnapshot(Block& block) {
  block.async_shared.assign(block.shared, block.shared + block.shared_bytes);
  block.async_fence = false;
}

}  // namespace nibble::cuda::emulator
