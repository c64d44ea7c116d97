// cp.async, bulk copies and their barriers. A copy is done at once, when it is waited for, or by
// chance, as the block's seed says; until then its destination holds NaN.
#include <cstring>

#include "tests/support/cuda_emulator/block.h"

namespace nibble::cuda::emulator {
namespace {

constexpr uint32_t kCopyBytes = 16;
// What a barrier's word holds while it is one.
constexpr uint64_t kBarrierMark = 0xba221e25ba221e25;

void Do(const AsyncCopy& copy) {
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, kCopyBytes);
  } else {
    std::memcpy(copy.to, copy.from, kCopyBytes);
  }
}

Mbarrier& FindBarrier(const char* what, uint32_t address) {
  Block& block = Running();
  const char* const word = SharedAt(what, address, 8, 8);
  for (Mbarrier& barrier : block.mbarriers) {
    if (barrier.address != address) continue;
    if (std::memcmp(word, &kBarrierMark, sizeof(kBarrierMark)) != 0) {
      Die("%s: the barrier at shared address %u was overwritten", what, address);
    }
    return barrier;
  }
  Die("%s: no barrier at shared address %u", what, address);
}

void EndPhaseIfComplete(Block& block, Mbarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.pending = barrier.arrivals;
  barrier.phase ^= 1;
  if (block.async_fence) TakeSnapshot(block);
  block.WakeAll(barrier.waiting.data(), static_cast<int>(barrier.waiting.size()));
  barrier.waiting.clear();
}

void DoBulkCopy(Block& block, const BulkCopyInFlight& copy) {
  std::memcpy(SharedAt("BulkCopy", copy.shared, copy.bytes, 16), copy.from, copy.bytes);
  std::memcpy(AsyncShared(block) + (SharedAt("BulkCopy", copy.shared, 0, 1) - block.shared),
              copy.from, copy.bytes);
  Mbarrier& barrier = FindBarrier("BulkCopy", copy.barrier);
  barrier.bytes -= copy.bytes;
  EndPhaseIfComplete(block, barrier);
}

}  // namespace

bool DoNow(Block& block) {
  return block.delay == Delay::kNone ||
         (block.delay == Delay::kChance && block.random.Below(2) == 0);
}

void StartCopy(uint32_t shared, const void* global, bool valid) {
  Block& block = Running();
  char* const to = SharedAt("CopyAsync16", shared, kCopyBytes, kCopyBytes);
  if (valid) CheckAlignment("CopyAsync16", global, kCopyBytes);
  const AsyncCopy copy = {to, valid ? static_cast<const char*>(global) : nullptr};
  if (DoNow(block)) {
    Do(copy);
  } else {
    std::memset(to, 0xff, kCopyBytes);
    block.current->copies.push_back(copy);
  }
}

void CommitCopies() {
  Thread& thread = *Running().current;
  thread.groups.push_back(static_cast<uint32_t>(thread.copies.size()));
}

void WaitForCopies(int pending) {
  Thread& thread = *Running().current;
  const size_t keep = static_cast<size_t>(pending);
  if (thread.groups.size() <= keep) return;
  const size_t num_done = thread.groups.size() - keep;
  const uint32_t end = thread.groups[num_done - 1];
  for (uint32_t i = 0; i < end; ++i) Do(thread.copies[i]);
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<ptrdiff_t>(end));
  thread.groups.erase(thread.groups.begin(),
                      thread.groups.begin() + static_cast<ptrdiff_t>(num_done));
  for (uint32_t& group : thread.groups) group -= end;
}

void FinishCopies(Thread& thread) {
  for (const AsyncCopy& copy : thread.copies) Do(copy);
  thread.copies.clear();
  thread.groups.clear();
}

// --- barriers and bulk copies ---

void InitBarrier(uint32_t address, uint32_t arrivals) {
  Block& block = Running();
  if (arrivals == 0) Die("BarrierInit of no arrivals");
  std::memcpy(SharedAt("BarrierInit", address, 8, 8), &kBarrierMark, sizeof(kBarrierMark));
  for (const Mbarrier& barrier : block.mbarriers) {
    if (barrier.address == address) Die("BarrierInit twice at shared address %u", address);
  }
  Mbarrier barrier;
  barrier.address = address;
  barrier.arrivals = arrivals;
  barrier.pending = arrivals;
  barrier.maker = block.current->number;
  block.mbarriers.push_back(std::move(barrier));
}

void FenceBarrierInit() {
  Block& block = Running();
  for (Mbarrier& barrier : block.mbarriers) {
    if (barrier.maker == block.current->number) barrier.fenced = true;
  }
}

void Arrive(uint32_t address, uint32_t expected_bytes) {
  Block& block = Running();
  Mbarrier& barrier = FindBarrier("BarrierArrive", address);
  if (barrier.pending == 0) Die("more than %u arrivals at a barrier", barrier.arrivals);
  barrier.bytes += expected_bytes;
  --barrier.pending;
  EndPhaseIfComplete(block, barrier);
}

void WaitForBarrier(const Point& point, uint32_t address, uint32_t parity) {
  Block& block = Running();
  while (FindBarrier(point.name, address).phase == (parity & 1)) {
    FindBarrier(point.name, address).waiting.push_back(block.current);
    block.current->waits_at = point;
    block.Suspend();
  }
}

void StartBulkCopy(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier) {
  Block& block = Running();
  char* const to = SharedAt("BulkCopy", shared, bytes, 16);
  CheckAlignment("BulkCopy", global, 16);
  if (bytes == 0 || bytes % 16 != 0) Die("BulkCopy of %u bytes", bytes);
  if (!FindBarrier("BulkCopy", barrier).fenced) Die("BulkCopy without BarrierInitFence");
  const BulkCopyInFlight copy = {shared, static_cast<const char*>(global), bytes, barrier};
  if (DoNow(block)) {
    DoBulkCopy(block, copy);
  } else {
    std::memset(to, 0xff, bytes);
    block.bulk_copies.push_back(copy);
  }
}

bool ProgressBulkCopies(Block& block, bool force) {
  if (block.bulk_copies.empty()) return false;
  if (!force && (block.delay != Delay::kChance || block.random.Below(8) != 0)) return false;
  const uint32_t place = block.random.Below(static_cast<uint32_t>(block.bulk_copies.size()));
  std::swap(block.bulk_copies[place], block.bulk_copies.back());
  const BulkCopyInFlight copy = block.bulk_copies.back();
  block.bulk_copies.pop_back();
  DoBulkCopy(block, copy);
  return true;
}

}  // namespace nibble::cuda::emulator
