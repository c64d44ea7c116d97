// The pretended runtime delays and fails as tests ask it to, so that a missing synchronisation or
// an unhandled error shows.
#include "tests/support/cuda_emulator/fake_runtime.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/kernels/cuda/cuda_test.h"
#include "tests/support/status_matchers.h"

namespace nibble::cuda {
namespace {

using fake::Call;
using nibble::testing::IsOk;
using nibble::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

class FakeRuntime : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    fake::Reset();
    before_ = fake::GetMemoryUse();
  }
  void TearDown() override {
    fake::Reset();
    EXPECT_EQ(fake::GetMemoryUse().allocations, before_.allocations);
    EXPECT_EQ(fake::GetMemoryUse().device_bytes, before_.device_bytes);
    EXPECT_EQ(fake::GetMemoryUse().host_bytes, before_.host_bytes);
    EXPECT_EQ(fake::GetMemoryUse().streams, before_.streams);
  }
  static Stream* stream() { return GetTestDevice().stream; }

 private:
  fake::MemoryUse before_;
};

using FakeRuntimeDeathTest = FakeRuntime;

TEST_F(FakeRuntime, AMissingSynchronizeShows) {
  const DeviceArray<char> device(std::vector<char>(16, 5));
  char* const locked = static_cast<char*>(*MallocHost(16));
  ASSERT_THAT(Copy(locked, device.data(), 16, stream()), IsOk());
  EXPECT_EQ(locked[3], 0);
  ASSERT_THAT(Synchronize(stream()), IsOk());
  EXPECT_EQ(locked[3], 5);
  FreeHost(locked);
}

TEST_F(FakeRuntime, ASourceChangedBeforeItsCopyIsDoneShows) {
  const DeviceArray<char> device(16);
  char* const locked = static_cast<char*>(*MallocHost(16));
  ASSERT_THAT(Copy(device.data(), locked, 16, stream()), IsOk());
  locked[0] = 9;
  EXPECT_EQ(device.Get()[0], 9);
  // Ordinary memory is copied at once.
  std::vector<char> plain(16, 1);
  ASSERT_THAT(Copy(device.data(), plain.data(), 16, stream()), IsOk());
  plain[0] = 9;
  EXPECT_EQ(device.Get()[0], 1);
  FreeHost(locked);
}

TEST_F(FakeRuntime, AMissingWaitBetweenStreamsShows) {
  Stream* const other = *MakeStream();
  const DeviceArray<char> from(std::vector<char>(16, 1));
  const DeviceArray<char> to(16);
  ASSERT_THAT(Fill(from.data(), 2, 16, other), IsOk());
  ASSERT_THAT(Copy(to.data(), from.data(), 16, stream()), IsOk());
  EXPECT_EQ(to.Get()[0], 1);
  Destroy(other);
}

TEST_F(FakeRuntime, TheNthCallFailsAndOnlyIt) {
  fake::FailCall({.call = Call::kMalloc, .nth = 3});
  std::vector<void*> memory;
  for (int i = 1; i <= 5; ++i) {
    const absl::StatusOr<void*> got = Malloc(100);
    if (i == 3) {
      EXPECT_THAT(got, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("cudaMalloc")));
    } else {
      ASSERT_THAT(got, IsOk());
      memory.push_back(*got);
    }
  }
  for (void* pointer : memory) Free(pointer);
  EXPECT_EQ(fake::GetCounts()[Call::kMalloc], 5);
}

TEST_F(FakeRuntime, EveryKindOfCallCanFail) {
  const DeviceArray<char> device(256);
  Event* const event = *MakeEvent();
  int64_t bytes = 0;
  const auto fails = [&](Call call, const std::function<absl::Status()>& make,
                         absl::StatusCode code = absl::StatusCode::kInternal) {
    fake::FailCall({.call = call, .for_ever = true});
    EXPECT_EQ(make().code(), code) << static_cast<int>(call);
    EXPECT_EQ(make().code(), code) << static_cast<int>(call);
    fake::Reset();
    EXPECT_FALSE(IsLost());
  };
  fails(
      Call::kOpenDevice, [] { return OpenDevice(0).status(); }, absl::StatusCode::kUnavailable);
  fails(
      Call::kMallocHost, [] { return MallocHost(8).status(); },
      absl::StatusCode::kResourceExhausted);
  fails(Call::kUseDevice, [] { return UseDevice(0); });
  fails(Call::kMemoryInfo, [&] { return MemoryInfo(&bytes, &bytes); });
  fails(Call::kMakeStream, [] { return MakeStream().status(); });
  fails(Call::kMakeEvent, [] { return MakeEvent().status(); });
  fails(Call::kSynchronize, [] { return Synchronize(stream()); });
  fails(Call::kRecord, [&] { return Record(event, stream()); });
  fails(Call::kWait, [&] { return Wait(stream(), event); });
  fails(Call::kElapsedMs, [&] { return ElapsedMs(event, event).status(); });
  fails(Call::kCopy, [&] { return Copy(device.data(), device.data(), 1, stream()); });
  fails(Call::kFill, [&] { return Fill(device.data(), 0, 1, stream()); });
  fails(Call::kIssueKernel, [] { return IssueKernel({}, nullptr, nullptr, 0, stream()); });
  fails(Call::kUseGemmWorkspace, [&] { return UseGemmWorkspace(stream(), device.data(), 256); });
  fails(Call::kIssueGemm, [] { return IssueGemm({}, stream()); });
  fails(Call::kBeginCapture, [] { return BeginCapture(stream()); });
  fails(Call::kIssueGraph, [] { return IssueGraph(nullptr, stream()); });
  fails(Call::kEndCapture, [] { return EndCapture(stream()).status(); });
  Destroy(event);
}

TEST_F(FakeRuntime, AStickyErrorFailsEverythingAfterIt) {
  const DeviceArray<char> device(16);
  fake::FailCall({.call = Call::kRun, .nth = 2, .sticky = true});
  ASSERT_THAT(Fill(device.data(), 1, 16, stream()), IsOk());
  ASSERT_THAT(Fill(device.data(), 2, 16, stream()), IsOk());
  EXPECT_FALSE(IsLost());
  EXPECT_THAT(Synchronize(stream()), Not(IsOk()));
  EXPECT_TRUE(IsLost());
  EXPECT_THAT(Malloc(1), StatusIs(absl::StatusCode::kInternal, HasSubstr("illegal memory access")));
  EXPECT_THAT(Synchronize(stream()), Not(IsOk()));
}

TEST_F(FakeRuntime, AnErrorOfTheWorkIsToldOnceByTheNextSynchronize) {
  const DeviceArray<char> device(16);
  fake::FailCall({.call = Call::kRun});
  ASSERT_THAT(Fill(device.data(), 1, 16, stream()), IsOk());
  EXPECT_THAT(Synchronize(stream()), Not(IsOk()));
  EXPECT_THAT(Synchronize(stream()), IsOk());
  EXPECT_FALSE(IsLost());
}

TEST_F(FakeRuntime, MemoryIsAsLargeAsTheMachineSays) {
  fake::Machine machine;
  machine.context_bytes = 1000;
  machine.traits.total_bytes = fake::GetMemoryUse().device_bytes + machine.context_bytes + 9000;
  fake::Reset(machine);
  int64_t free_bytes = 0, total_bytes = 0;
  ASSERT_THAT(MemoryInfo(&free_bytes, &total_bytes), IsOk());
  EXPECT_EQ(total_bytes, machine.traits.total_bytes);
  EXPECT_EQ(free_bytes, 9000);
  EXPECT_THAT(Malloc(free_bytes + 1), Not(IsOk()));
  const absl::StatusOr<void*> all = Malloc(free_bytes);
  ASSERT_THAT(all, IsOk());
  EXPECT_THAT(Malloc(1), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("memory")));
  Free(*all);
}

TEST_F(FakeRuntime, PretendsToBeWithoutADeviceOrWithAnOldDriver) {
  fake::Machine machine;
  machine.num_devices = 0;
  fake::Reset(machine);
  EXPECT_EQ(CountDevices(), 0);
  EXPECT_THAT(OpenDevice(0), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no CUDA device")));
  machine = {};
  machine.driver_too_old = true;
  fake::Reset(machine);
  EXPECT_EQ(CountDevices(), 0);
  EXPECT_THAT(OpenDevice(0), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("driver")));
}

TEST_F(FakeRuntime, RefusesWhatACaptureDoesNotAllow) {
  const DeviceArray<char> device(256);
  char host[16];
  const auto breaks = [&](const std::function<absl::Status()>& call) {
    ASSERT_THAT(BeginCapture(stream()), IsOk());
    EXPECT_THAT(call(), StatusIs(absl::StatusCode::kInternal, HasSubstr("captur")));
    EXPECT_THAT(EndCapture(stream()), Not(IsOk()));
  };
  breaks([] { return Malloc(1).status(); });
  breaks([] { return MallocHost(1).status(); });
  breaks([&] { return Copy(host, device.data(), 16, stream()); });
  breaks([&] { return Copy(device.data(), host, 16, stream()); });
  // Another thread may allocate meanwhile.
  ASSERT_THAT(BeginCapture(stream()), IsOk());
  std::thread([] { Free(*Malloc(1)); }).join();
  const absl::StatusOr<Graph*> graph = EndCapture(stream());
  ASSERT_THAT(graph, IsOk());
  Destroy(*graph);
}

TEST_F(FakeRuntime, RefusesWhatCublasRefuses) {
  const DeviceArray<char> memory(1024);
  GemmCall call = {GemmCall::Type::kInt8, 0, 4, 4, 8, memory.data(), 8, memory.data() + 64, 8,
                   memory.data() + 128,   4};
  EXPECT_THAT(IssueGemm(call, stream()), IsOk());
  call.k = 6;
  EXPECT_THAT(IssueGemm(call, stream()), Not(IsOk()));
  call.k = 8;
  call.x_stride = 10;
  EXPECT_THAT(IssueGemm(call, stream()), Not(IsOk()));
  call.x_stride = 8;
  call.m = 1000;
  EXPECT_THAT(IssueGemm(call, stream()), Not(IsOk()));
  ASSERT_THAT(Synchronize(stream()), IsOk());
}

void Empty() {}

TEST_F(FakeRuntime, RefusesLaunchesThatNoDeviceTakes) {
  const auto launch = [](Dim3 grid, Dim3 block, uint32_t shared_bytes) {
    Tape tape;
    Launch(&tape, &Empty, grid, block, {.shared_bytes = shared_bytes});
    return tape.Play(stream());
  };
  EXPECT_THAT(launch({1}, {1024}, 227 * 1024), IsOk());
  EXPECT_THAT(launch({1}, {1025}, 0), Not(IsOk()));
  EXPECT_THAT(launch({1}, {0}, 0), Not(IsOk()));
  EXPECT_THAT(launch({1}, {1, 1, 65}, 0), Not(IsOk()));
  EXPECT_THAT(launch({1, 65536}, {32}, 0), Not(IsOk()));
  EXPECT_THAT(launch({1}, {32}, 227 * 1024 + 1), Not(IsOk()));
  ASSERT_THAT(Synchronize(stream()), IsOk());
  EXPECT_EQ(fake::GetCounts()[Call::kIssueKernel], 6);
  EXPECT_EQ(fake::GetCounts().kernels_run, 1);
}

TEST_F(FakeRuntime, CopiesOutsideAnAllocationAreRefused) {
  const DeviceArray<char> device(256);
  char host[300] = {};
  EXPECT_THAT(Copy(device.data(), host, 257, stream()), Not(IsOk()));
  EXPECT_THAT(Copy(host, device.data() + 1, 256, stream()), Not(IsOk()));
  EXPECT_THAT(Fill(device.data(), 0, 257, stream()), Not(IsOk()));
  EXPECT_THAT(Copy(device.data(), host, 256, stream()), IsOk());
}

TEST_F(FakeRuntime, AGraphKeepsTheArgumentsOfItsCapture) {
  const DeviceArray<char> device(std::vector<char>(16, 0));
  auto tape = std::make_unique<Tape>();
  tape->AddFill(device.data(), 3, 16);
  ASSERT_THAT(BeginCapture(stream()), IsOk());
  ASSERT_THAT(tape->Play(stream()), IsOk());
  Graph* const graph = *EndCapture(stream());
  tape.reset();
  ASSERT_THAT(IssueGraph(graph, stream()), IsOk());
  EXPECT_EQ(device.Get()[15], 3);
  EXPECT_EQ(fake::GetCounts()[Call::kIssueGraph], 1);
  EXPECT_EQ(fake::GetMemoryUse().graphs, 1);
  Destroy(graph);
  EXPECT_EQ(fake::GetMemoryUse().graphs, 0);
}

TEST_F(FakeRuntime, ThreadsMayUseTheirOwnStreams) {
  const auto work = [] {
    Stream* const own = *MakeStream();
    for (uint8_t i = 0; i < 100; ++i) {
      char* const device = static_cast<char*>(*Malloc(1000));
      EXPECT_THAT(Fill(device, i, 1000, own), IsOk());
      char host[1000];
      EXPECT_THAT(Copy(host, device, 1000, own), IsOk());
      EXPECT_EQ(host[999], static_cast<char>(i));
      Free(device);
    }
    Destroy(own);
  };
  std::thread other(work);
  work();
  other.join();
}

TEST_F(FakeRuntimeDeathTest, FreeingTwiceEndsTheProcess) {
  void* const memory = *Malloc(10);
  Free(memory);
  EXPECT_DEATH(Free(memory), "Free of what Malloc did not give");
}

}  // namespace
}  // namespace nibble::cuda
