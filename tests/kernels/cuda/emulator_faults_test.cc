// Faults planted in kernels and in the code around them: each is seen under some seed, and the same
// code without the fault is right under all.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/half.h"
#include "tests/kernels/cuda/cuda_test.h"
#include "tests/support/cuda_emulator/cuda_machine.h"

namespace nibble::cuda {
namespace {

constexpr int kSeeds = 24;

using EmulatorFaults = CudaTest;
using EmulatorFaultsDeathTest = CudaTest;

// Of kSeeds runs, those that `right` calls wrong.
int CountWrong(const std::function<bool()>& right) {
  int wrong = 0;
  ForMachineSeeds(kSeeds, [&] { wrong += right() ? 0 : 1; });
  return wrong;
}

template <typename... Params, typename... Args>
void RunNow(void (*kernel)(Params...), Dim3 grid, Dim3 block, const LaunchOptions& options,
            const Args&... args) {
  Tape tape;
  Launch(&tape, kernel, grid, block, options, args...);
  Play(tape);
}

std::vector<float> Numbers(int count) {
  std::vector<float> numbers(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) numbers[static_cast<size_t>(i)] = static_cast<float>(i + 1);
  return numbers;
}

// --- order ---

enum class Leave { kNothing, kFirst, kSecond };

template <Leave kLeave>
__global__ void Reverse(const float* in, float* out) {
  auto* const shared = reinterpret_cast<float*>(DynamicShared());
  for (unsigned round = 0; round < 2; ++round) {
    shared[threadIdx.x] = in[round * blockDim.x + threadIdx.x];
    if (kLeave != Leave::kFirst) __syncthreads();
    out[round * blockDim.x + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
    if (kLeave != Leave::kSecond) __syncthreads();
  }
}

bool Reverses(void (*kernel)(const float*, float*)) {
  constexpr int kThreads = 128;
  const std::vector<float> in = Numbers(2 * kThreads);
  const DeviceArray<float> device_in(in);
  const DeviceArray<float> out(2 * kThreads);
  RunNow(kernel, {1}, {kThreads}, {.shared_bytes = kThreads * 4}, device_in.data(), out.data());
  const std::vector<float> got = out.Get();
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] != in[i / kThreads * kThreads + kThreads - 1 - i % kThreads]) return false;
  }
  return true;
}

TEST_F(EmulatorFaults, AMissingSyncthreadsShows) {
  EXPECT_EQ(CountWrong([] { return Reverses(&Reverse<Leave::kNothing>); }), 0);
  EXPECT_GT(CountWrong([] { return Reverses(&Reverse<Leave::kFirst>); }), kSeeds / 2);
  EXPECT_GT(CountWrong([] { return Reverses(&Reverse<Leave::kSecond>); }), kSeeds / 2);
}

template <bool kFault>
__global__ void ReverseWarp(const float* in, float* out) {
  auto* const shared = reinterpret_cast<float*>(DynamicShared());
  shared[threadIdx.x] = in[threadIdx.x];
  if (!kFault) __syncwarp();
  out[threadIdx.x] = shared[31 - threadIdx.x];
}

bool ReversesWarp(void (*kernel)(const float*, float*)) {
  const DeviceArray<float> in(Numbers(32));
  const DeviceArray<float> out(32);
  RunNow(kernel, {1}, {32}, {.shared_bytes = 128}, in.data(), out.data());
  const std::vector<float> got = out.Get();
  return std::equal(got.rbegin(), got.rend(), Numbers(32).begin());
}

TEST_F(EmulatorFaults, AMissingSyncwarpShows) {
  EXPECT_EQ(CountWrong([] { return ReversesWarp(&ReverseWarp<false>); }), 0);
  EXPECT_GT(CountWrong([] { return ReversesWarp(&ReverseWarp<true>); }), kSeeds / 2);
}

// Each block takes what the block before it made: nothing orders them.
__global__ void PassOn(float* sums) { sums[blockIdx.x + 1] = sums[blockIdx.x] + 1; }

TEST_F(EmulatorFaults, BlocksThatRelyOnTheirOrderShow) {
  const auto right = [] {
    const DeviceArray<float> sums(std::vector<float>(9, 0.0f));
    RunNow(&PassOn, {8}, {1}, {}, sums.data());
    return sums.Get()[8] == 8;
  };
  EXPECT_GT(CountWrong(right), kSeeds / 2);
}

// --- asynchronous copies ---

enum class CopyFault { kNone, kNoWait, kNoCommit, kWaitForLess };

template <CopyFault kFault>
__global__ void CopyRows(const float* in, float* out) {
  auto* const shared = reinterpret_cast<float*>(DynamicShared());
  for (unsigned stage = 0; stage < 2; ++stage) {
    const unsigned at = (stage * blockDim.x + threadIdx.x) * 4;
    CopyAsync16(SharedAddress(shared + at), in + at, true);
    if (kFault != CopyFault::kNoCommit || stage == 0) CopyAsyncCommit();
  }
  if (kFault == CopyFault::kWaitForLess) {
    CopyAsyncWait<1>();
  } else if (kFault != CopyFault::kNoWait) {
    CopyAsyncWait<0>();
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < 8 * blockDim.x; i += blockDim.x) out[i] = shared[i];
}

bool CopiesRows(void (*kernel)(const float*, float*)) {
  constexpr int kThreads = 32;
  const DeviceArray<float> in(Numbers(8 * kThreads));
  const DeviceArray<float> out(8 * kThreads);
  RunNow(kernel, {1}, {kThreads}, {.shared_bytes = 8 * kThreads * 4}, in.data(), out.data());
  return out.Get() == Numbers(8 * kThreads);
}

TEST_F(EmulatorFaults, AMissingWaitOrCommitOfACopyShows) {
  EXPECT_EQ(CountWrong([] { return CopiesRows(&CopyRows<CopyFault::kNone>); }), 0);
  EXPECT_GT(CountWrong([] { return CopiesRows(&CopyRows<CopyFault::kNoWait>); }), 0);
  EXPECT_GT(CountWrong([] { return CopiesRows(&CopyRows<CopyFault::kNoCommit>); }), 0);
  EXPECT_GT(CountWrong([] { return CopiesRows(&CopyRows<CopyFault::kWaitForLess>); }), 0);
}

// A ring of one buffer: the copy for the next stage may come at once.
template <bool kFault>
__global__ void ReuseBuffer(const float* in, float* out) {
  auto* const shared = reinterpret_cast<float*>(DynamicShared());
  for (unsigned stage = 0; stage < 4; ++stage) {
    const float* const from = in + (stage * blockDim.x + threadIdx.x) * 4;
    CopyAsync16(SharedAddress(shared + threadIdx.x * 4), from, true);
    CopyAsyncCommit();
    CopyAsyncWait<0>();
    __syncthreads();
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned at = (blockDim.x - 1 - threadIdx.x) * 4 + i;
      out[stage * blockDim.x * 4 + at] = shared[at];
    }
    if (!kFault) __syncthreads();
  }
}

bool ReusesBuffer(void (*kernel)(const float*, float*)) {
  constexpr int kThreads = 64;
  const DeviceArray<float> in(Numbers(16 * kThreads));
  const DeviceArray<float> out(16 * kThreads);
  RunNow(kernel, {1}, {kThreads}, {.shared_bytes = 16 * kThreads}, in.data(), out.data());
  return out.Get() == Numbers(16 * kThreads);
}

TEST_F(EmulatorFaults, ABufferReusedTooEarlyShows) {
  EXPECT_EQ(CountWrong([] { return ReusesBuffer(&ReuseBuffer<false>); }), 0);
  EXPECT_GT(CountWrong([] { return ReusesBuffer(&ReuseBuffer<true>); }), kSeeds / 2);
}

template <bool kFault>
__global__ void BulkRows(const float* in, float* out) {
  char* const shared = DynamicShared();
  const uint32_t barrier = SharedAddress(shared);
  const uint32_t rows = SharedAddress(shared + 64);
  if (threadIdx.x == 0) {
    BarrierInit(barrier, 1);
    BarrierInitFence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    BarrierArriveExpecting(barrier, 256);
    BulkCopy(rows, in, 256, barrier);
  }
  if (!kFault) BarrierWait(barrier, 0);
  out[threadIdx.x] = FloatOf(LoadShared32(rows + 4 * threadIdx.x));
}

bool BulkCopies(void (*kernel)(const float*, float*)) {
  const DeviceArray<float> in(Numbers(64));
  const DeviceArray<float> out(64);
  RunNow(kernel, {1}, {64}, {.shared_bytes = 64 + 256}, in.data(), out.data());
  return out.Get() == Numbers(64);
}

TEST_F(EmulatorFaults, AMissingBarrierWaitShows) {
  EXPECT_EQ(CountWrong([] { return BulkCopies(&BulkRows<false>); }), 0);
  EXPECT_GT(CountWrong([] { return BulkCopies(&BulkRows<true>); }), kSeeds / 4);
}

// --- matrices ---

enum class MatrixFault { kNone, kSwapped, kTransposed, kNoFence, kNoWait };

template <MatrixFault kFault>
__global__ void WarpProduct(const uint16_t* a, const uint16_t* b, float* out) {
  const unsigned g = threadIdx.x / 4;
  const unsigned t = threadIdx.x % 4 * 2;
  const auto pair = [](const uint16_t* at) { return static_cast<uint32_t>(at[1]) << 16 | at[0]; };
  uint32_t a_fragment[4];
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = g + (kFault == MatrixFault::kSwapped ? i / 2 : i % 2) * 8;
    const unsigned k = t + (kFault == MatrixFault::kSwapped ? i % 2 : i / 2) * 8;
    a_fragment[i] = pair(a + row * 16 + k);
  }
  const uint32_t b_fragment[2] = {pair(b + g * 16 + t), pair(b + g * 16 + t + 8)};
  float d[4] = {};
  MmaHalf(d, a_fragment, b_fragment);
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = g + i / 2 * 8;
    const unsigned column = t + i % 2;
    out[kFault == MatrixFault::kTransposed ? column * 16 + row : row * 8 + column] = d[i];
  }
}

bool Multiplies(void (*kernel)(const uint16_t*, const uint16_t*, float*), int rows, int columns,
                uint32_t shared_bytes) {
  std::vector<uint16_t> a(static_cast<size_t>(rows) * 16);
  std::vector<uint16_t> b(static_cast<size_t>(columns) * 16);
  const auto a_at = [](size_t i) { return static_cast<float>(i * 7 % 13) - 6; };
  const auto b_at = [](size_t i) { return static_cast<float>(i * 5 % 11) - 5; };
  for (size_t i = 0; i < a.size(); ++i) a[i] = F32ToF16(a_at(i));
  for (size_t i = 0; i < b.size(); ++i) b[i] = F32ToF16(b_at(i));
  const DeviceArray<uint16_t> device_a(a);
  const DeviceArray<uint16_t> device_b(b);
  const DeviceArray<float> out(rows * columns);
  RunNow(kernel, {1}, {static_cast<uint32_t>(rows) * 2}, {.shared_bytes = shared_bytes},
         device_a.data(), device_b.data(), out.data());
  const std::vector<float> got = out.Get();
  for (size_t i = 0; i < got.size(); ++i) {
    float sum = 0;
    const size_t row = i / static_cast<size_t>(columns) * 16;
    const size_t column = i % static_cast<size_t>(columns) * 16;
    for (size_t k = 0; k < 16; ++k) sum += a_at(row + k) * b_at(column + k);
    if (got[i] != sum) return false;
  }
  return true;
}

TEST_F(EmulatorFaults, AWrongFragmentMapShows) {
  EXPECT_TRUE(Multiplies(&WarpProduct<MatrixFault::kNone>, 16, 8, 0));
  EXPECT_FALSE(Multiplies(&WarpProduct<MatrixFault::kSwapped>, 16, 8, 0));
  EXPECT_FALSE(Multiplies(&WarpProduct<MatrixFault::kTransposed>, 16, 8, 0));
}

// d[64,8] of one warpgroup.
template <MatrixFault kFault>
__global__ void WarpgroupProduct(const uint16_t* a, const uint16_t* b, float* out) {
  auto* const shared = reinterpret_cast<uint16_t*>(DynamicShared());
  const unsigned n = threadIdx.x / 16;
  const unsigned k = threadIdx.x % 16;
  shared[k / 8 * 64 + n * 8 + k % 8] = b[n * 16 + k];
  if (kFault != MatrixFault::kNoFence) FenceForAsync();
  __syncthreads();
  const unsigned row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  const unsigned t = threadIdx.x % 4 * 2;
  uint32_t a_fragment[4];
  for (unsigned i = 0; i < 4; ++i) {
    const uint16_t* const at = a + (row + i % 2 * 8) * 16 + t + i / 2 * 8;
    a_fragment[i] = static_cast<uint32_t>(at[1]) << 16 | at[0];
  }
  float d[4] = {};
  WgmmaFence();
  WgmmaHalf<8>(d, a_fragment, MatrixDescriptor(SharedAddress(shared), 128, 256));
  WgmmaCommit();
  if (kFault != MatrixFault::kNoWait) WgmmaWait<0>();
  for (unsigned i = 0; i < 4; ++i) out[(row + i / 2 * 8) * 8 + t + i % 2] = d[i];
  if (kFault == MatrixFault::kNoWait) WgmmaWait<0>();
}

TEST_F(EmulatorFaults, AMissingFenceOrWaitOfAWarpgroupsProductShows) {
  const auto run = [](auto* kernel) { return Multiplies(kernel, 64, 8, 512); };
  EXPECT_EQ(CountWrong([&] { return run(&WarpgroupProduct<MatrixFault::kNone>); }), 0);
  EXPECT_EQ(CountWrong([&] { return run(&WarpgroupProduct<MatrixFault::kNoFence>); }), kSeeds);
  EXPECT_EQ(CountWrong([&] { return run(&WarpgroupProduct<MatrixFault::kNoWait>); }), kSeeds);
}

// --- dependent launches ---

__global__ void Produce(float* values) { values[threadIdx.x] = 5; }

template <bool kFault>
__global__ void Consume(const float* values, float* out) {
  if (!kFault) WaitForPreviousKernel();
  const float value = values[threadIdx.x];
  WaitForPreviousKernel();
  out[threadIdx.x] = value;
}

bool Consumes(void (*kernel)(const float*, float*)) {
  const DeviceArray<float> values(std::vector<float>(64, 0.0f));
  const DeviceArray<float> out(64);
  Tape tape;
  Launch(&tape, &Produce, {1}, {64}, {}, values.data());
  Launch(&tape, kernel, {1}, {64}, {.dependent = true}, values.data(), out.data());
  Play(tape);
  return out.Get() == std::vector<float>(64, 5.0f);
}

TEST_F(EmulatorFaults, AReadBeforeWaitForPreviousKernelShows) {
  EXPECT_EQ(CountWrong([] { return Consumes(&Consume<false>); }), 0);
  EXPECT_GT(CountWrong([] { return Consumes(&Consume<true>); }), kSeeds / 4);
}

__global__ void NeverWaits(float* out) { out[threadIdx.x] = 1; }

TEST_F(EmulatorFaultsDeathTest, ADependentKernelThatNeverWaitsEndsTheProcess) {
  const DeviceArray<float> out(32);
  EXPECT_DEATH(RunNow(&NeverWaits, {1}, {32}, {.dependent = true}, out.data()),
               "never calls WaitForPreviousKernel.*\n.*NeverWaits");
}

// --- memory ---

__global__ void ReadPast(const float* in, float* out, int count) {
  if (static_cast<int>(threadIdx.x) <= count) out[0] = in[threadIdx.x];
}
__global__ void WritePast(float* out, int count) {
  if (static_cast<int>(threadIdx.x) <= count) out[threadIdx.x] = 1;
}

TEST_F(EmulatorFaultsDeathTest, AnIndexPastAnArrayEndsTheProcess) {
  const DeviceArray<float> in(Numbers(24));
  const DeviceArray<float> out(1);
  EXPECT_DEATH(RunNow(&ReadPast, {1}, {32}, {}, in.data(), out.data(), 24),
               "memory fault.*\n.*ReadPast.*\n.*thread \\(24, 0, 0\\)");
  EXPECT_DEATH(RunNow(&WritePast, {1}, {32}, {}, in.data(), 24), "memory fault");
  // Within the 16 bytes that the alignment leaves, a write shows when the array is freed.
  const auto write = [] {
    const DeviceArray<float> odd(23);
    RunNow(&WritePast, {1}, {32}, {}, odd.data(), 23);
  };
  EXPECT_DEATH(write(), "something wrote at byte");
}

__global__ void ReadFreed(const float* in, float* out) { out[0] = in[0]; }

TEST_F(EmulatorFaultsDeathTest, FreedMemoryEndsTheProcess) {
  const DeviceArray<float> out(1);
  const float* freed = nullptr;
  {
    const DeviceArray<float> in(Numbers(4));
    freed = in.data();
  }
  EXPECT_DEATH(RunNow(&ReadFreed, {1}, {1}, {}, freed, out.data()), "memory fault.*\n.*ReadFreed");
}

TEST_F(EmulatorFaultsDeathTest, HostMemoryAsAnArgumentEndsTheProcess) {
  const std::vector<float> host = Numbers(4);
  const DeviceArray<float> out(1);
  EXPECT_DEATH(RunNow(&ReadFreed, {1}, {1}, {}, host.data(), out.data()),
               "argument 0 of kernel .*ReadFreed.* points to memory of the host");
}

__global__ void PastShared(int at) {
  if (threadIdx.x == 0) reinterpret_cast<volatile float*>(DynamicShared())[at] = 1;
}
__global__ void PastSharedByAddress(int at) {
  if (threadIdx.x == 0)
    LoadShared32(SharedAddress(DynamicShared()) + 4 * static_cast<uint32_t>(at));
}

TEST_F(EmulatorFaultsDeathTest, AnIndexPastSharedMemoryEndsTheProcess) {
  RunNow(&PastShared, {1}, {32}, {.shared_bytes = 400}, 99);
  EXPECT_DEATH(RunNow(&PastShared, {1}, {32}, {.shared_bytes = 400}, 100), "past its 400 bytes");
  EXPECT_DEATH(RunNow(&PastShared, {1}, {32}, {.shared_bytes = 400}, -1),
               "before its shared memory");
  EXPECT_DEATH(RunNow(&PastShared, {1}, {32}, {.shared_bytes = 400}, 256), "memory fault");
  EXPECT_DEATH(RunNow(&PastSharedByAddress, {1}, {32}, {.shared_bytes = 400}, 100),
               "LoadShared32: 4 bytes at shared offset 400, the block has 400");
}

enum class Misaligned { kStream, kShared, kCopyTo, kCopyFrom, kMatrix };

__global__ void Misalign(const char* in, int where, int by) {
  const uint32_t shared = SharedAddress(DynamicShared());
  const uint32_t offset = static_cast<uint32_t>(by);
  uint32_t r[4];
  switch (static_cast<Misaligned>(where)) {
    case Misaligned::kStream:
      LoadStream128(in + by);
      break;
    case Misaligned::kShared:
      LoadShared128(shared + offset);
      break;
    case Misaligned::kCopyTo:
      CopyAsync16(shared + offset, in, true);
      break;
    case Misaligned::kCopyFrom:
      CopyAsync16(shared, in + by, true);
      break;
    case Misaligned::kMatrix:
      LoadMatrix4(r, shared + offset);
      break;
  }
}

TEST_F(EmulatorFaultsDeathTest, MisalignedAccessesEndTheProcess) {
  const DeviceArray<char> in(64);
  for (int where = 0; where <= static_cast<int>(Misaligned::kMatrix); ++where) {
    RunNow(&Misalign, {1}, {32}, {.shared_bytes = 64}, in.data(), where, 16);
    EXPECT_DEATH(RunNow(&Misalign, {1}, {32}, {.shared_bytes = 64}, in.data(), where, 8),
                 "is not a multiple of 16");
  }
}

// --- meetings ---

__global__ void HalfAtBarrier() {
  if (threadIdx.x < 32) __syncthreads();
}
__global__ void TwoBarriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void HalfAtShuffle(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(~0u, out[threadIdx.x], 1);
  __syncwarp();
}
__global__ void MaskedShuffle(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, out[threadIdx.x], 1);
}
__global__ void WaitsForNobody() {
  const uint32_t barrier = SharedAddress(DynamicShared());
  if (threadIdx.x == 0) BarrierInit(barrier, 2);
  __syncthreads();
  if (threadIdx.x == 0) BarrierArrive(barrier);
  BarrierWait(barrier, 0);
}
__global__ void UnequalNamedBarrier() {
  if (threadIdx.x < 32) NamedBarrier(3, 64);
}

TEST_F(EmulatorFaultsDeathTest, MeetingsThatSomeMissEndTheProcess) {
  const DeviceArray<int> out(32);
  EXPECT_DEATH(RunNow(&HalfAtBarrier, {1}, {64}, {}),
               "returned|a thread returns while another waits");
  EXPECT_DEATH(RunNow(&TwoBarriers, {1}, {64}, {}),
               "divergent barrier: __syncthreads at .*while others wait");
  EXPECT_DEATH(RunNow(&HalfAtShuffle, {1}, {32}, {}, out.data()), "lanes of one warp part");
  EXPECT_DEATH(RunNow(&MaskedShuffle, {1}, {32}, {}, out.data()), "mask 0000ffff leaves out lane");
  EXPECT_DEATH(RunNow(&WaitsForNobody, {1}, {32}, {.shared_bytes = 8}),
               "deadlock: 32 threads.*BarrierWait");
  EXPECT_DEATH(RunNow(&UnequalNamedBarrier, {1}, {64}, {}), "deadlock: 32 threads.*NamedBarrier");
}

}  // namespace
}  // namespace nibble::cuda
