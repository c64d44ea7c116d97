// One block while it runs: its threads, who of them can run, and where the others wait.
// Internal to the emulator.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/launch.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/cuda_emulator/fiber.h"

namespace nibble::cuda::emulator {

// xorshift64*.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 0x1234567) {
    if (state_ == 0) state_ = 1;
    Next();
  }
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>((Next() >> 32) * bound >> 32); }

 private:
  uint64_t state_;
};

// When asynchronous work is done: as soon as possible, as late as allowed, or by chance.
enum class Delay { kNone, kLongest, kChance };

struct AsyncCopy {
  char* to;
  const char* from;  // null: zeros
};

struct Wgmma;  // wgmma.cc

struct Thread {
  uint3 index = {};
  uint32_t number = 0;
  bool started = false;
  bool done = false;
  void* sp = nullptr;
  FiberStack stack;
  Point waits_at;
  // cp.async: begun copies in order, and how many belonged to each committed group.
  std::vector<AsyncCopy> copies;
  std::vector<uint32_t> groups;
  // wgmma
  bool wgmma_fenced = false;
  uint32_t wgmma_groups = 0;
  std::vector<Wgmma*> wgmmas;  // whose sums the lane has not taken
};

// Lanes that meet at one instruction.
template <int kLanes>
struct Meeting {
  Point point;
  int live = 0;
  int arrived = 0;
  void* frames[kLanes] = {};
  Thread* threads[kLanes] = {};  // that wait
  Action action = nullptr;
};

struct NamedMeeting {
  Point point;
  int expected = 0;
  std::vector<Thread*> threads;
};

struct BulkCopyInFlight {
  uint32_t shared;
  const char* from;
  uint32_t bytes;
  uint32_t barrier;
};

struct Mbarrier {
  uint32_t address;
  uint32_t arrivals;  // of a phase
  uint32_t pending;   // still to come in this phase
  int64_t bytes = 0;  // expected and not yet copied
  uint32_t phase = 0;
  bool fenced = false;
  uint32_t maker = 0;  // the thread that did BarrierInit
  std::vector<Thread*> waiting;
};

class Block {
 public:
  Block();
  ~Block();
  // Runs one block to its end.
  void Run(const KernelCall& call, void* const* args, uint3 index, uint64_t seed);
  // The launch before this one; the next block runs it when its threads can do nothing but wait
  // for it, at the latest when it ends.
  void SetPrevious(const std::function<void()>* previous) { previous_ = previous; }
  void WaitForPrevious(const Point& point);

  // Another thread's turn; the caller has been put where it will be woken from.
  void Suspend();
  void Wake(Thread* thread) { ready_[num_ready_++] = thread; }
  // In random order.
  void WakeAll(Thread* const* threads, int count);

  Thread* current = nullptr;
  std::vector<Thread> threads;
  std::vector<Meeting<32>> warps;
  std::vector<Meeting<128>> warpgroups;
  NamedMeeting barriers[16];  // 0 is __syncthreads
  Random random{1};
  Delay delay = Delay::kNone;

  uint32_t shared_bytes = 0;
  char* shared = nullptr;
  char* arena = nullptr;  // whose end shared memory is

  // Hopper
  std::vector<Mbarrier> mbarriers;
  std::vector<BulkCopyInFlight> bulk_copies;
  bool async_fence = false;        // since the last snapshot
  std::vector<char> async_shared;  // shared memory as the tensor cores see it; empty: all poison
  std::vector<std::unique_ptr<Wgmma>> wgmmas;

  const KernelCall* call = nullptr;
  int num_live = 0;

 private:
  static void RunThreads();
  Thread* NextThread();
  void Enter(Thread* thread);
  void Finish(Thread* thread);
  void Reset(const KernelCall& call, uint3 index, uint64_t seed);
  void OrderThreads();
  // False if there is none, or none any more.
  bool RunPrevious();
  void CheckEnd();
  [[noreturn]] void Deadlock();

  void* const* args_ = nullptr;
  void* main_sp_ = nullptr;
  const std::function<void()>* previous_ = nullptr;
  std::vector<Thread*> waiting_for_previous_;
  bool waited_for_previous_ = false;
  bool depth_first_ = false;
  std::vector<Thread*> ready_;
  uint32_t num_ready_ = 0;
};

// The block that runs; aborts if none does.
Block& Running();
// The same; null if none does.
const Block* RunningBlock();

// shared_memory.cc
void BeginShared(Block& block, uint32_t bytes);
void EndShared(Block& block);
// Shared memory as it is now is what the tensor cores see.
void TakeSnapshot(Block& block);
char* AsyncShared(Block& block);

// async_copies.cc
bool DoNow(Block& block);
// Does some of the copies in flight, at least one if `force`; false if it did none.
bool ProgressBulkCopies(Block& block, bool force);
// What a thread that returns leaves undone.
void FinishCopies(Thread& thread);

}  // namespace nibble::cuda::emulator
