// The living floor on a GPU that a test can look into: memory to the byte, faults that end their
// own step only, a lost device, and a small storm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/support/cuda_emulator/fake_runtime.h"
#include "tests/support/recording_sink.h"

namespace nibble {
namespace {

namespace fake = cuda::fake;

std::string PathOf(const std::string& model) {
  return std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/models/" + model;
}

class CudaEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fake::Reset();
    before_ = fake::GetMemoryUse();
  }
  void TearDown() override {
    engine_.reset();
    fake::Reset();
    EXPECT_EQ(fake::GetMemoryUse().device_bytes, before_.device_bytes);
    EXPECT_EQ(fake::GetMemoryUse().graphs, before_.graphs);
  }

  static EngineOptions Options() {
    EngineOptions options;
    options.backend = {.device = "cuda:0", .num_threads = 1};
    options.limits = {.max_rows = 32, .max_sequences = 8, .max_logit_rows = 8};
    return options;
  }
  void Start(const EngineOptions& options = Options()) {
    auto engine = Engine::Create(options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  absl::Status Load(const std::string& name, const std::string& model) {
    return engine_->LoadModel({.name = name, .source = PathOf(model)}, nullptr).status();
  }
  std::shared_ptr<RecordingSink> Ask(int which, int tokens = 5) {
    GenerateRequest request;
    request.model = "m";
    std::vector<int32_t> prompt;
    for (int i = 0; i < 2 + which % 9; ++i) prompt.push_back((which * 37 + i * 11) % 500);
    request.prompt = TokenPrompt{prompt};
    request.stopping.max_tokens = tokens;
    request.stopping.ignore_eos = true;
    request.sampling.temperature = which % 2 == 0 ? 0.0f : 0.8f;
    request.sampling.seed = static_cast<uint64_t>(which);
    auto sink = std::make_shared<RecordingSink>();
    const auto id = engine_->Submit(request, sink);
    EXPECT_TRUE(id.ok()) << id.status();
    if (id.ok()) ids_.push_back(*id);
    return sink;
  }
  // What the ledger says lies on the device; graphs are a reserve of the driver's.
  int64_t DeviceBytes() const {
    int64_t bytes = 0;
    for (const Ledger::Entry& entry : engine_->Stats().memory) {
      if (!IsHostMemory(entry.kind) && entry.kind != MemoryKind::kGraphs) bytes += entry.bytes;
    }
    return bytes;
  }

  fake::MemoryUse before_;
  std::unique_ptr<Engine> engine_;
  std::vector<RequestId> ids_;
};

TEST_F(CudaEngineTest, EveryByteOfTheDeviceIsInTheLedger) {
  Start();
  EXPECT_EQ(DeviceBytes(), fake::GetMemoryUse().device_bytes - before_.device_bytes);
  ASSERT_TRUE(Load("m", "stories260k").ok());
  ASSERT_TRUE(Load("e", "tiny_bert").ok());
  EXPECT_EQ(DeviceBytes(), fake::GetMemoryUse().device_bytes - before_.device_bytes);
  EXPECT_TRUE(Ask(1)->Wait().ok());
  EXPECT_EQ(DeviceBytes(), fake::GetMemoryUse().device_bytes - before_.device_bytes);
  ASSERT_TRUE(engine_->UnloadModel("m", absl::InfiniteFuture()).ok());
  ASSERT_TRUE(engine_->UnloadModel("e", absl::InfiniteFuture()).ok());
  EXPECT_EQ(DeviceBytes(), fake::GetMemoryUse().device_bytes - before_.device_bytes);
}

TEST_F(CudaEngineTest, TheBudgetIsTheDevicesUnlessTold) {
  fake::Machine machine;
  machine.traits.total_bytes = int64_t{1} << 30;
  fake::Reset(machine);
  Start();
  EXPECT_GT(engine_->options().memory_bytes, int64_t{700} << 20);
  EXPECT_LT(engine_->options().memory_bytes, int64_t{1} << 30);
  engine_.reset();
  EngineOptions little = Options();
  little.memory_bytes = 10 << 20;
  const absl::Status status = Engine::Create(little).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string{status.message()}, ::testing::HasSubstr("workspace"));
}

TEST_F(CudaEngineTest, AnswersTheSameInACrowd) {
  EngineOptions options = Options();
  options.backend.batch_invariant = true;
  Start(options);
  ASSERT_TRUE(Load("m", "stories260k").ok());
  constexpr int kRequests = 8;
  std::vector<RecordingSink::Answer> alone;
  for (int i = 0; i < kRequests; ++i) {
    const auto sink = Ask(i);
    ASSERT_TRUE(sink->Wait().ok());
    alone.push_back(sink->answer());
  }
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 2 * kRequests; ++i) sinks.push_back(Ask(i % kRequests));
  // Some leave in the middle.
  for (size_t i = 0; i < 4; ++i) {
    engine_->Cancel(ids_[ids_.size() - 1 - i], absl::CancelledError("the client left"));
  }
  for (size_t i = 0; i < sinks.size(); ++i) {
    if (!sinks[i]->Wait().ok()) {
      EXPECT_GE(i, sinks.size() - 4);
      continue;
    }
    EXPECT_EQ(sinks[i]->answer().token_ids, alone[i % kRequests].token_ids) << "request " << i;
  }
}

TEST_F(CudaEngineTest, AFailedStepEndsItsOwnRequestsOnly) {
  Start();
  ASSERT_TRUE(Load("m", "stories260k").ok());
  const auto before = Ask(2);
  ASSERT_TRUE(before->Wait().ok());
  fake::FailCall({.call = fake::Call::kRun, .nth = 3});
  EXPECT_EQ(Ask(2)->Wait().code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(engine_->DeviceLost());
  const auto after = Ask(2);
  ASSERT_TRUE(after->Wait().ok());
  EXPECT_EQ(after->answer().token_ids, before->answer().token_ids);
}

TEST_F(CudaEngineTest, ALostDeviceIsTold) {
  Start();
  ASSERT_TRUE(Load("m", "stories260k").ok());
  EXPECT_FALSE(engine_->DeviceLost());
  fake::FailCall({.call = fake::Call::kRun, .nth = 5, .sticky = true});
  EXPECT_EQ(Ask(1)->Wait().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(engine_->DeviceLost());
  EXPECT_EQ(Ask(2)->Wait().code(), absl::StatusCode::kInternal);
}

TEST_F(CudaEngineTest, ALoadThatFailsAnywhereLeavesTheOthersAlone) {
  Start();
  ASSERT_TRUE(Load("m", "stories260k").ok());
  const auto before = Ask(4);
  ASSERT_TRUE(before->Wait().ok());
  const int64_t bytes = fake::GetMemoryUse().device_bytes;
  for (const fake::Call call : {fake::Call::kMalloc, fake::Call::kCopy, fake::Call::kFill,
                                fake::Call::kIssueKernel, fake::Call::kSynchronize}) {
    int failures = 0;
    for (int64_t nth = 1; nth < 400; nth += nth < 4 ? 1 : nth / 2) {
      fake::FailCall({.call = call, .nth = nth});
      const absl::Status status = Load("e", "tiny_bert");
      fake::Reset();
      if (status.ok()) {
        ASSERT_TRUE(engine_->UnloadModel("e", absl::InfiniteFuture()).ok());
        break;
      }
      ++failures;
      EXPECT_EQ(status.code(), call == fake::Call::kMalloc ? absl::StatusCode::kResourceExhausted
                                                           : absl::StatusCode::kInternal)
          << status;
      EXPECT_EQ(fake::GetMemoryUse().device_bytes, bytes);
    }
    EXPECT_GT(failures, 0) << static_cast<int>(call);
  }
  const auto after = Ask(4);
  ASSERT_TRUE(after->Wait().ok());
  EXPECT_EQ(after->answer().token_ids, before->answer().token_ids);
}

}  // namespace
}  // namespace nibble
