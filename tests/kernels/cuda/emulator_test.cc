// The emulated machine does what the PTX ISA and the CUDA programming guide say.
#include <gtest/gtest.h>

#include <random>

#include "kernels/half.h"
#include "tests/kernels/cuda/cuda_test.h"
#include "tests/support/cuda_emulator/cuda_machine.h"

namespace nibble::cuda {
namespace {

using Emulator = CudaTest;
constexpr int kSeeds = 12;

__global__ void WriteIndices(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += static_cast<int>(thread);
}

TEST_F(Emulator, RunsEveryThreadOfEveryBlockOnce) {
  ForMachineSeeds(kSeeds, [] {
    constexpr int kThreads = 3 * 5 * 2;
    constexpr int kBlocks = 4 * 3 * 2;
    DeviceArray<int> out(std::vector<int>(kThreads * kBlocks, 0));
    Tape tape;
    Launch(&tape, &WriteIndices, {4, 3, 2}, {3, 5, 2}, {}, out.data());
    Play(tape);
    const std::vector<int> got = out.Get();
    for (int i = 0; i < kThreads * kBlocks; ++i) EXPECT_EQ(got[i], i % kThreads);
  });
}

__global__ void Reverse(const float* in, float* out) {
  auto* const shared = reinterpret_cast<float*>(DynamicShared());
  for (int round = 0; round < 4; ++round) {
    shared[threadIdx.x] = in[threadIdx.x] + static_cast<float>(round);
    __syncthreads();
    out[round * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)] =
        shared[blockDim.x - 1 - threadIdx.x];
    __syncthreads();
  }
}

TEST_F(Emulator, BarriersOrderSharedMemory) {
  ForMachineSeeds(kSeeds, [] {
    constexpr int kThreads = 200;
    std::vector<float> in(kThreads);
    for (int i = 0; i < kThreads; ++i) in[i] = static_cast<float>(i);
    const DeviceArray<float> device_in(in);
    const DeviceArray<float> out(4 * kThreads);
    Tape tape;
    Launch(&tape, &Reverse, {1}, {kThreads}, {.shared_bytes = kThreads * 4}, device_in.data(),
           out.data());
    Play(tape);
    const std::vector<float> got = out.Get();
    for (int i = 0; i < 4 * kThreads; ++i) {
      EXPECT_EQ(got[i], static_cast<float>(kThreads - 1 - i % kThreads + i / kThreads));
    }
  });
}

__global__ void Products(const uint16_t* a, const uint16_t* b, float* d, int bf16) {
  auto* const shared = reinterpret_cast<uint16_t*>(DynamicShared());
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) shared[i] = a[i];
  __syncwarp();
  uint32_t a_fragment[4];
  LoadMatrix4(a_fragment, SharedAddress(shared + lane % 16 * 16 + lane / 16 * 8));
  uint32_t b_fragment[2];
  for (int i = 0; i < 2; ++i) {
    const int n = lane / 4;
    const int k = lane % 4 * 2 + 8 * i;
    b_fragment[i] = static_cast<uint32_t>(b[n * 16 + k + 1]) << 16 | b[n * 16 + k];
  }
  float sums[4];
  for (int i = 0; i < 4; ++i) {
    sums[i] = d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2];
  }
  if (bf16) {
    MmaBf16(sums, a_fragment, b_fragment);
  } else {
    MmaHalf(sums, a_fragment, b_fragment);
  }
  for (int i = 0; i < 4; ++i) {
    d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
}

TEST_F(Emulator, MultipliesMatricesThroughFragments) {
  std::mt19937 random(7);
  for (int bf16 = 0; bf16 < 2; ++bf16) {
    const DType dtype = bf16 ? DType::kBF16 : DType::kF16;
    const auto draw = [&](size_t count, std::vector<float>* values) {
      std::vector<uint16_t> halves(count);
      for (uint16_t& half : halves) {
        // Sums of such values are exact.
        const float value = static_cast<float>(static_cast<int>(random() % 33) - 16);
        half = F32ToHalf(dtype, value);
        values->push_back(value);
      }
      return halves;
    };
    std::vector<float> a, b;
    const DeviceArray<uint16_t> device_a(draw(16 * 16, &a));
    const DeviceArray<uint16_t> device_b(draw(8 * 16, &b));
    const DeviceArray<float> d(std::vector<float>(16 * 8, 1.0f));
    Tape tape;
    Launch(&tape, &Products, {1}, {32}, {.shared_bytes = 512}, device_a.data(), device_b.data(),
           d.data(), bf16);
    Play(tape);
    const std::vector<float> got = d.Get();
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 8; ++n) {
        float sum = 1;
        for (int k = 0; k < 16; ++k) sum += a[m * 16 + k] * b[n * 16 + k];
        EXPECT_EQ(got[m * 8 + n], sum) << m << " " << n;
      }
    }
  }
}

__global__ void CopyThrough(const uint32_t* in, uint32_t* out, int valid) {
  auto* const shared = reinterpret_cast<uint32_t*>(DynamicShared());
  for (int stage = 0; stage < 2; ++stage) {
    CopyAsync16(SharedAddress(shared + (stage * blockDim.x + threadIdx.x) * 4),
                in + (stage * blockDim.x + threadIdx.x) * 4, static_cast<int>(threadIdx.x) < valid);
    CopyAsyncCommit();
  }
  CopyAsyncWait<1>();
  __syncthreads();
  out[threadIdx.x] = shared[(blockDim.x - 1 - threadIdx.x) * 4];
  CopyAsyncWait<0>();
  __syncthreads();
  out[blockDim.x + threadIdx.x] = shared[(2 * blockDim.x - 1 - threadIdx.x) * 4 + 3];
}

TEST_F(Emulator, AsynchronousCopiesArriveWhenWaitedFor) {
  ForMachineSeeds(kSeeds, [] {
    constexpr int kThreads = 64;
    constexpr int kValid = 50;
    std::vector<uint32_t> in(2 * kThreads * 4);
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint32_t>(i + 1);
    const DeviceArray<uint32_t> device_in(in);
    const DeviceArray<uint32_t> out(2 * kThreads);
    Tape tape;
    Launch(&tape, &CopyThrough, {1}, {kThreads}, {.shared_bytes = 2 * kThreads * 16},
           device_in.data(), out.data(), kValid);
    Play(tape);
    const std::vector<uint32_t> got = out.Get();
    for (int i = 0; i < kThreads; ++i) {
      const int source = kThreads - 1 - i;
      EXPECT_EQ(got[i], source < kValid ? in[source * 4] : 0u);
      EXPECT_EQ(got[kThreads + i], source < kValid ? in[(kThreads + source) * 4 + 3] : 0u);
    }
  });
}

__global__ void BulkThrough(const uint32_t* in, uint32_t* out, int stages) {
  char* const shared = DynamicShared();
  const uint32_t barrier = SharedAddress(shared);
  const uint32_t buffer = SharedAddress(shared + 128);
  if (threadIdx.x == 0) {
    BarrierInit(barrier, 1);
    BarrierInitFence();
  }
  __syncthreads();
  for (int stage = 0; stage < stages; ++stage) {
    if (threadIdx.x == 0) {
      BarrierArriveExpecting(barrier, 512);
      BulkCopy(buffer, in + stage * 128, 512, barrier);
    }
    BarrierWait(barrier, static_cast<uint32_t>(stage) & 1);
    out[stage * 128 + static_cast<int>(threadIdx.x)] = LoadShared32(buffer + 4 * threadIdx.x);
    __syncthreads();
  }
}

TEST_F(Emulator, BulkCopiesCompleteTheirBarriersPhases) {
  ForMachineSeeds(kSeeds, [] {
    std::vector<uint32_t> in(5 * 128);
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint32_t>(i * 3);
    const DeviceArray<uint32_t> device_in(in);
    const DeviceArray<uint32_t> out(5 * 128);
    Tape tape;
    Launch(&tape, &BulkThrough, {1}, {128}, {.shared_bytes = 1024}, device_in.data(), out.data(),
           5);
    Play(tape);
    EXPECT_EQ(out.Get(), in);
  });
}

__global__ void Exchange(const int* in, int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int value = in[lane];
  int* const mine = out + lane * 6;
  mine[0] = __shfl_sync(~0u, value, 5);
  mine[1] = __shfl_xor_sync(~0u, value, 3);
  mine[2] = __shfl_down_sync(~0u, value, 7);
  mine[3] = __shfl_sync(~0u, value, 1, 8);
  mine[4] = static_cast<int>(__ballot_sync(~0u, value % 3 == 0));
  mine[5] = __any_sync(~0u, lane == 40);
}

TEST_F(Emulator, LanesExchangeValues) {
  ForMachineSeeds(kSeeds, [] {
    std::vector<int> in(32);
    for (int i = 0; i < 32; ++i) in[i] = 100 + i * i;
    const DeviceArray<int> device_in(in);
    const DeviceArray<int> out(32 * 6);
    Tape tape;
    Launch(&tape, &Exchange, {1}, {32}, {}, device_in.data(), out.data());
    Play(tape);
    const std::vector<int> got = out.Get();
    unsigned ballot = 0;
    for (int i = 0; i < 32; ++i) ballot |= (in[i] % 3 == 0 ? 1u : 0u) << i;
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(got[i * 6 + 0], in[5]);
      EXPECT_EQ(got[i * 6 + 1], in[i ^ 3]);
      EXPECT_EQ(got[i * 6 + 2], in[i + 7 < 32 ? i + 7 : i]);
      EXPECT_EQ(got[i * 6 + 3], in[i / 8 * 8 + 1]);
      EXPECT_EQ(static_cast<unsigned>(got[i * 6 + 4]), ballot);
      EXPECT_EQ(got[i * 6 + 5], 0);
    }
  });
}

// One warpgroup: d[64,32] += a[64,32]·b[32,32], b[n][k] in core matrices.
__global__ void WarpgroupProduct(const uint16_t* a, const uint16_t* b, float* d) {
  auto* const shared = reinterpret_cast<uint16_t*>(DynamicShared());
  for (unsigned i = threadIdx.x; i < 32 * 32; i += 128) {
    const unsigned n = i / 32, k = i % 32;
    shared[(n / 8 * 4 + k / 8) * 64 + n % 8 * 8 + k % 8] = b[i];
  }
  FenceForAsync();
  __syncthreads();
  const unsigned lane = threadIdx.x % 32;
  const unsigned row = threadIdx.x / 32 * 16 + lane / 4;
  float sums[16];
  for (int i = 0; i < 16; ++i) sums[i] = 0.5f;
  uint32_t fragments[2][4];
  for (unsigned step = 0; step < 2; ++step) {
    for (unsigned i = 0; i < 4; ++i) {
      const uint16_t* const at = a + (row + i % 2 * 8) * 32 + step * 16 + lane % 4 * 2 + i / 2 * 8;
      fragments[step][i] = static_cast<uint32_t>(at[1]) << 16 | at[0];
    }
  }
  for (unsigned step = 0; step < 2; ++step) {
    WgmmaFence();
    WgmmaHalf<32>(sums, fragments[step],
                  MatrixDescriptor(SharedAddress(shared + step * 2 * 64), 128, 512));
    WgmmaCommit();
  }
  WgmmaWait<0>();
  for (unsigned i = 0; i < 16; ++i) {
    d[(row + i / 2 % 2 * 8) * 32 + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
}

TEST_F(Emulator, MultipliesByWarpgroups) {
  ForMachineSeeds(kSeeds, [] {
    std::mt19937 random(11);
    std::vector<float> a(64 * 32), b(32 * 32);
    std::vector<uint16_t> a_half(a.size()), b_half(b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<float>(static_cast<int>(random() % 17) - 8);
      a_half[i] = F32ToF16(a[i]);
    }
    for (size_t i = 0; i < b.size(); ++i) {
      b[i] = static_cast<float>(static_cast<int>(random() % 17) - 8);
      b_half[i] = F32ToF16(b[i]);
    }
    const DeviceArray<uint16_t> device_a(a_half), device_b(b_half);
    const DeviceArray<float> d(64 * 32);
    Tape tape;
    Launch(&tape, &WarpgroupProduct, {1}, {128}, {.shared_bytes = 2048}, device_a.data(),
           device_b.data(), d.data());
    Play(tape);
    const std::vector<float> got = d.Get();
    for (int m = 0; m < 64; ++m) {
      for (int n = 0; n < 32; ++n) {
        float sum = 0.5f;
        for (int k = 0; k < 32; ++k) sum += a[m * 32 + k] * b[n * 32 + k];
        EXPECT_EQ(got[m * 32 + n], sum) << m << " " << n;
      }
    }
  });
}

}  // namespace
}  // namespace nibble::cuda
