// The backend on a machine that fails: at any call of the start, of a load and of a step, once or
// for good. Codes are exact, nothing leaks, and the next step is as if nothing had been.
#include <gmock/gmock.h>

#include <memory>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/cuda/cuda_test.h"
#include "tests/kernels/cuda/toy_decoder.h"
#include "tests/support/cuda_emulator/fake_runtime.h"

namespace nibble::cuda {
namespace {

using fake::Call;

BackendOptions Options() { return {.device = "cuda:0", .num_threads = 1}; }

class CudaFaultsTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    fake::Reset();
    before_ = fake::GetMemoryUse();
  }
  void TearDown() override {
    fake::Reset();
    ExpectNothingLeft();
  }
  void ExpectNothingLeft() const {
    const fake::MemoryUse now = fake::GetMemoryUse();
    EXPECT_EQ(now.allocations, before_.allocations);
    EXPECT_EQ(now.device_bytes, before_.device_bytes);
    EXPECT_EQ(now.host_bytes, before_.host_bytes);
    EXPECT_EQ(now.streams, before_.streams);
    EXPECT_EQ(now.graphs, before_.graphs);
  }
  static std::unique_ptr<CudaBackend> Make() {
    auto backend = CudaBackend::Make(Options(), {.input_bytes = 64 << 10, .result_bytes = 4096});
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }

  fake::MemoryUse before_;
};

TEST_F(CudaFaultsTest, AnyFailureOfTheStartIsToldAndLeavesNothing) {
  struct Case {
    Call call;
    absl::StatusCode code;
  };
  const Case cases[] = {{Call::kOpenDevice, absl::StatusCode::kUnavailable},
                        {Call::kMemoryInfo, absl::StatusCode::kInternal},
                        {Call::kMakeStream, absl::StatusCode::kInternal},
                        {Call::kMalloc, absl::StatusCode::kResourceExhausted},
                        {Call::kMallocHost, absl::StatusCode::kResourceExhausted},
                        {Call::kCopy, absl::StatusCode::kInternal},
                        {Call::kRun, absl::StatusCode::kInternal},
                        {Call::kSynchronize, absl::StatusCode::kInternal},
                        {Call::kUseGemmWorkspace, absl::StatusCode::kInternal}};
  for (const Case& each : cases) {
    int64_t failures = 0;
    for (int64_t nth = 1;; ++nth) {
      fake::Reset();
      fake::FailCall({.call = each.call, .nth = nth});
      const absl::Status status = MakeCudaBackend(Options()).status();
      if (status.ok()) break;
      ++failures;
      EXPECT_EQ(status.code(), each.code) << status << ", call " << static_cast<int>(each.call);
      ExpectNothingLeft();
    }
    EXPECT_GT(failures, 0) << "call " << static_cast<int>(each.call) << " is never made";
  }
}

TEST_F(CudaFaultsTest, AMachineWithoutAGpuFallsBackOnlyWhenAskedTo) {
  for (const bool old : {false, true}) {
    fake::Machine machine;
    machine.num_devices = old ? 1 : 0;
    machine.driver_too_old = old;
    fake::Reset(machine);
    EXPECT_EQ(MakeBackend(Options()).status().code(), absl::StatusCode::kUnavailable);
    BackendOptions any = Options();
    any.device = "auto";
    const auto backend = MakeBackend(any);
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_EQ((*backend)->device(), "cpu");
  }
  fake::Machine turing;
  turing.traits.compute_major = 7;
  turing.traits.compute_minor = 5;
  fake::Reset(turing);
  EXPECT_EQ(MakeBackend(Options()).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CudaFaultsTest, AnyFailureOfAStepEndsThatStepAlone) {
  const ToyStep step = ToyStepAt(0, 2, 1);
  for (const Call call : {Call::kUseDevice, Call::kCopy, Call::kIssueKernel, Call::kRun,
                          Call::kSynchronize, Call::kIssueGraph}) {
    const auto backend = Make();
    ToyDecoder toy(backend.get());
    const ToyAnswer clean = toy.Run(step);
    ASSERT_TRUE(clean.status.ok());
    // Graphs are only issued once a step has come three times; what is issued one by one, in a
    // step that has not been seen.
    const bool replayed = call == Call::kIssueGraph || call == Call::kUseDevice;
    for (int i = 0; i < 2; ++i) toy.Run(step);
    int64_t failures = 0;
    for (int64_t nth = 1; nth < 40; ++nth) {
      if (!replayed) {
        EXPECT_TRUE(backend->Allocate(64).ok());
      }
      fake::Reset();
      fake::FailCall({.call = call, .nth = nth});
      const ToyAnswer failed = toy.Run(step);
      fake::Reset();
      if (failed.status.ok()) break;
      ++failures;
      EXPECT_EQ(failed.status.code(), absl::StatusCode::kInternal) << failed.status;
      EXPECT_FALSE(backend->IsLost());
      const ToyAnswer next = toy.Run(step);
      ASSERT_TRUE(next.status.ok()) << next.status;
      EXPECT_TRUE(next == clean) << "call " << static_cast<int>(call) << ", " << nth;
    }
    EXPECT_GT(failures, 0) << "call " << static_cast<int>(call) << " is never made";
  }
}

TEST_F(CudaFaultsTest, ACaptureThatFailsIsPlayedInstead) {
  const ToyStep step = ToyStepAt(0, 3);
  for (const Call call : {Call::kBeginCapture, Call::kEndCapture}) {
    const auto backend = Make();
    ToyDecoder toy(backend.get());
    const ToyAnswer clean = toy.Run(step);
    fake::FailCall({.call = call, .nth = 1, .for_ever = true});
    for (int i = 0; i < 4; ++i) {
      const ToyAnswer again = toy.Run(step);
      ASSERT_TRUE(again.status.ok()) << again.status;
      EXPECT_TRUE(again == clean);
    }
    EXPECT_EQ(backend->step().graphs().counts().replayed, 0);
    EXPECT_EQ(backend->step().graphs().counts().failed, 2) << "once for each tape of the step";
    fake::Reset();
  }
}

TEST_F(CudaFaultsTest, AnOperationThatFailsInACaptureEndsTheCapture) {
  const ToyStep step = ToyStepAt(0, 3);
  const auto backend = Make();
  ToyDecoder toy(backend.get());
  const ToyAnswer clean = toy.Run(step);
  fake::FailCall({.call = Call::kIssueKernel});  // of the second time, which is captured
  for (int i = 0; i < 4; ++i) {
    const ToyAnswer again = toy.Run(step);
    ASSERT_TRUE(again.status.ok()) << again.status;
    EXPECT_TRUE(again == clean);
  }
  EXPECT_EQ(backend->step().graphs().counts().failed, 1);
}

TEST_F(CudaFaultsTest, ALostDeviceStaysLost) {
  const auto backend = Make();
  ToyDecoder toy(backend.get());
  fake::FailCall({.call = Call::kRun, .nth = 1, .sticky = true});
  EXPECT_EQ(toy.Run(ToyStepAt(0, 1)).status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(backend->IsLost());
  EXPECT_EQ(toy.Run(ToyStepAt(0, 1)).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(backend->Allocate(100).status().code(), absl::StatusCode::kInternal);
}

TEST_F(CudaFaultsTest, AnyFailureOfALoadIsTold) {
  const auto backend = Make();
  const WeightSpec spec = {.n = 32, .k = 128, .double_quant = true};
  const std::vector<float> values(32 * 128, 0.5f);
  const auto matrix = QuantizeFourBit(values, 32, 128, {.double_quant = true});
  ASSERT_TRUE(matrix.ok());
  const PackedSize size = backend->PackedBytes(spec);
  const absl::StatusOr<Buffer> codes = backend->Allocate(size.codes),
                               scales = backend->Allocate(size.scales),
                               nested = backend->Allocate(size.nested);
  ASSERT_TRUE(codes.ok() && scales.ok() && nested.ok());
  Weight weight = {
      .spec = spec, .codes = codes->data(), .scales = scales->data(), .nested = nested->data()};
  for (const Call call :
       {Call::kUseDevice, Call::kCopy, Call::kIssueKernel, Call::kRun, Call::kSynchronize}) {
    int64_t failures = 0;
    for (int64_t nth = 1; nth < 40; ++nth) {
      fake::FailCall({.call = call, .nth = nth});
      const absl::Status status = backend->PackFourBit(*matrix, &weight);
      fake::Reset();
      if (status.ok()) break;
      ++failures;
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    }
    EXPECT_GT(failures, 0) << "call " << static_cast<int>(call) << " is never made";
    fake::FailCall({.call = call});
    const float one = 1;
    if (call != Call::kIssueKernel) {
      EXPECT_EQ(backend->CopyToDevice(nested->data(), &one, 4).code(), absl::StatusCode::kInternal);
    }
    fake::Reset();
  }
  for (const Call call : {Call::kMalloc, Call::kFill, Call::kSynchronize}) {
    fake::FailCall({.call = call});
    EXPECT_EQ(backend->Allocate(4096).status().code(), call == Call::kMalloc
                                                           ? absl::StatusCode::kResourceExhausted
                                                           : absl::StatusCode::kInternal);
    fake::Reset();
  }
}

}  // namespace
}  // namespace nibble::cuda
