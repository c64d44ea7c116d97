// What the emulated instructions need from the machine: where a thread stands, meetings of warps
// and blocks, shared memory, asynchronous copies. Only cuda_names.h, cuda_machine.h and the
// emulator's own sources include this.
//
// A block's threads are fibers that run in seeded random order between the points where they meet;
// blocks run one after another in seeded random order. Whatever CUDA calls undefined (a divergent
// barrier, a misaligned or out-of-range address, a deadlock) ends the process with a message.
// Thread rule: one OS thread at a time runs kernels (fake_runtime.cc's lock).
#pragma once

#include <cstddef>
#include <cstdint>

// CUDA's indices, of the thread that runs.
struct uint3 {
  unsigned x, y, z;
};
inline constinit uint3 threadIdx = {};
inline constinit uint3 blockIdx = {};
inline constinit uint3 blockDim = {};
inline constinit uint3 gridDim = {};

namespace nibble::cuda::emulator {

// A line of the kernel's source. As a default argument current() is the caller's.
class Where {
 public:
  static constexpr Where current(const char* file = __builtin_FILE(),
                                 unsigned line = __builtin_LINE()) {
    Where where;
    where.file_ = file;
    where.line_ = line;
    return where;
  }
  const char* file_name() const { return file_; }
  unsigned line() const { return line_; }

 private:
  const char* file_ = "";
  unsigned line_ = 0;
};

// An instruction in the kernel's source.
struct Point {
  const char* name = "";
  Where where;
};

// Ends the process: `fault`, and the kernel, block and thread that run.
[[noreturn]] void Die(const char* fault, ...) __attribute__((format(printf, 1, 2)));

// --- meetings ---

// Does one collective instruction for all lanes; frames[lane] is null where the lane has returned.
using Action = void (*)(void* const* frames);
// Every live lane of the warp (mask must name them all) meets; the last to come acts.
void MeetWarp(const Point& point, unsigned mask, void* frame, Action action);
// The same for instructions that need all 32 lanes, and for the 128 lanes of a warpgroup.
void MeetWholeWarp(const Point& point, void* frame, Action action);
void MeetWarpgroup(const Point& point, void* frame, Action action);
// Every thread of the block; none may have returned.
void MeetBlock(const Point& point);
void MeetNamed(const Point& point, int id, int threads);

// --- shared memory ---

char* SharedBegin();
// Of a pointer into the block's dynamic shared memory.
uint32_t SharedOffset(const void* pointer);
// `bytes` bytes at a shared address, which must be inside and aligned to `alignment`.
char* SharedAt(const char* what, uint32_t address, uint32_t bytes, uint32_t alignment);
void CheckAlignment(const char* what, const void* global, uint32_t alignment);

// --- actions of warp instructions ---

enum class Shuffle { kIndex, kXor, kDown, kUp };
struct ShuffleFrame {
  Shuffle kind;
  unsigned argument;
  unsigned width;
  uint64_t value;
  uint64_t result;
};
void ShuffleLanes(void* const* frames);
struct VoteFrame {
  bool predicate;
  unsigned ballot;
};
void VoteLanes(void* const* frames);
struct MatrixFrame {
  uint32_t* r;
  uint32_t row;
};
void LoadMatrices(void* const* frames);
void LoadMatricesTransposed(void* const* frames);
struct MmaFrame {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};
void MultiplyHalf(void* const* frames);
void MultiplyBf16(void* const* frames);

// --- asynchronous copies ---

void StartCopy(uint32_t shared, const void* global, bool valid);
void CommitCopies();
void WaitForCopies(int pending);

// --- Hopper ---

void InitBarrier(uint32_t barrier, uint32_t arrivals);
void FenceBarrierInit();
void Arrive(uint32_t barrier, uint32_t expected_bytes);
void WaitForBarrier(const Point& point, uint32_t barrier, uint32_t parity);
void StartBulkCopy(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier);
void FenceAsyncProxy();
void FenceWgmma();
// d: num_d accumulators of this lane.
void StartWgmma(const Point& point, int n, float* d, const uint32_t* a, uint64_t b);
void CommitWgmma();
void WaitForWgmma(int pending);

// --- dependent launches ---

void WaitForPrevious(const Point& point);

}  // namespace nibble::cuda::emulator
