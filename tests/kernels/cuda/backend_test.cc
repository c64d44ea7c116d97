// The backend as the engine sees it: what its operations upload, in parts if need be, steps that
// are replayed, memory, and what is refused. The kernels' own arithmetic is tested beside this.
#include <gmock/gmock.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/cuda/cuda_test.h"
#include "tests/kernels/cuda/toy_decoder.h"

namespace nibble::cuda {
namespace {

using ::testing::HasSubstr;

BackendOptions OptionsOf(const std::string& device, Compute compute = Compute::kFp32) {
  return {.device = device, .num_threads = 2, .compute = compute};
}

std::string Text(const absl::Status& status) { return std::string{status.message()}; }

class CudaBackendTest : public CudaTest {
 protected:
  static std::unique_ptr<CudaBackend> Make(Compute compute = Compute::kFp32,
                                           const OwnSizes& sizes = {}) {
    auto backend = CudaBackend::Make(OptionsOf("cuda:0", compute), sizes);
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }
};

TEST_F(CudaBackendTest, SaysWhatItIs) {
  const auto exact = Make(), automatic = Make(Compute::kAuto);
  EXPECT_EQ(exact->device(), "cuda:0");
  EXPECT_EQ(exact->isa(), absl::StrCat("sm_", traits().compute_major, traits().compute_minor));
  EXPECT_EQ(exact->num_threads(), 2);
  EXPECT_EQ(exact->compute(), Compute::kFp32);
  EXPECT_EQ(automatic->compute(), Compute::kBf16);
  EXPECT_FALSE(exact->IsLost());
  EXPECT_GT(exact->DeviceBytes(), 0);
  EXPECT_GT(exact->OwnMemory().workspace, 0);
}

TEST_F(CudaBackendTest, RefusesWhatIsNotThere) {
  const auto code = [](const BackendOptions& options) {
    return MakeCudaBackend(options).status().code();
  };
  for (const char* device : {"cuda:", "cuda:x", "cuda:-1", "gpu", "cuda:0x1"}) {
    EXPECT_EQ(code(OptionsOf(device)), absl::StatusCode::kInvalidArgument) << device;
  }
  const absl::Status far = MakeCudaBackend(OptionsOf("cuda:1000")).status();
  EXPECT_EQ(far.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(far), HasSubstr(absl::StrCat(CountDevices(), " GPU")));
  EXPECT_EQ(code(OptionsOf("cuda:0", Compute::kInt8)), absl::StatusCode::kUnimplemented);
  BackendOptions threads = OptionsOf("cuda:0");
  threads.num_threads = -1;
  EXPECT_EQ(code(threads), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaBackendTest, ModelsThatItsKernelsCannotServeAreRefusedByName) {
  const auto backend = std::move(*MakeCudaBackend(OptionsOf("cuda:0")));
  EXPECT_TRUE(backend->CheckLimits({.max_head_dim = 256, .max_vocab = 1 << 20}).ok());
  const absl::Status heads = backend->CheckLimits({.max_head_dim = 257});
  EXPECT_EQ(heads.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Text(heads), HasSubstr("head_dim: got 257, want at most 256"));
  const absl::Status words = backend->CheckLimits({.max_vocab = (1 << 20) + 1});
  EXPECT_EQ(words.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Text(words), HasSubstr("vocabulary: got 1048577"));
}

TEST_F(CudaBackendTest, MemoryIsZeroedAndGoesBothWays) {
  const auto backend = Make(Compute::kFp32, {.input_bytes = 4096, .result_bytes = 512});
  constexpr size_t kCount = 1000;
  const absl::StatusOr<Buffer> buffer = backend->Allocate(kCount * 4);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  std::vector<float> got(kCount, -1);
  backend->CopyToHost(got.data(), buffer->data(), kCount * 4);
  EXPECT_EQ(got, std::vector<float>(kCount, 0.0f)) << "8 times the results' block";
  for (size_t i = 0; i < kCount; ++i) got[i] = static_cast<float>(i);
  const std::vector<float> sent = got;
  ASSERT_TRUE(backend->CopyToDevice(buffer->data(), sent.data(), kCount * 4).ok());
  std::fill(got.begin(), got.end(), -1.0f);
  backend->CopyToHost(got.data(), buffer->data(), kCount * 4);
  EXPECT_EQ(got, sent);
  EXPECT_TRUE(backend->Finish().ok());
  EXPECT_EQ(backend->Allocate(0)->data(), nullptr);
}

TEST_F(CudaBackendTest, MoreMemoryThanThereIsIsRefusedWithItsSize) {
  const auto backend = Make();
  const absl::Status status = backend->Allocate(int64_t{1} << 50).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(status), HasSubstr(absl::StrCat(int64_t{1} << 50)));
}

TEST_F(CudaBackendTest, AStepIsTheReferences) {
  const auto backend = Make();
  const auto reference = *MakeReferenceBackend();
  ToyDecoder got(backend.get()), want(reference.get());
  for (int64_t position = 0; position < 20; ++position) {
    const ToyStep step = ToyStepAt(position, 5, 3);
    const ToyAnswer a = got.Run(step), b = want.Run(step);
    ASSERT_TRUE(a.status.ok()) << a.status;
    for (size_t i = 0; i < a.hidden.size(); ++i) {
      // Values of about 1 through some 200 roundings, and keys and values in fp16 on both sides,
      // where a rounding may fall on the other side: 2^-11 of a value of about 1, of which
      // attention takes an average.
      ASSERT_NEAR(a.hidden[i], b.hidden[i], 1e-3f) << "position " << position << ", value " << i;
    }
    for (size_t i = 0; i < a.sampled.size(); ++i) {
      ASSERT_EQ(a.sampled[i].top.size(), 3u);
      ASSERT_NEAR(a.sampled[i].logprob, b.sampled[i].logprob, 5e-3f);
      if (b.sampled[i].top[0].logprob - b.sampled[i].top[1].logprob < 0.05f) continue;
      EXPECT_EQ(a.sampled[i].token, b.sampled[i].token);
    }
  }
}

TEST_F(CudaBackendTest, StepsAreReplayedWithOtherInputsAndTheSameResults) {
  for (const Compute compute : {Compute::kFp32, Compute::kBf16}) {
    const auto backend = Make(compute), forgetful = Make(compute);
    ToyDecoder replayed(backend.get()), played(forgetful.get());
    for (int64_t position = 0; position < 40; ++position) {
      const ToyStep step = ToyStepAt(position, 3);
      const ToyAnswer got = replayed.Run(step);
      ASSERT_TRUE(got.status.ok()) << got.status;
      ASSERT_TRUE(forgetful->Allocate(64).ok());  // which forgets graphs
      EXPECT_TRUE(got == played.Run(step)) << "position " << position;
    }
    EXPECT_EQ(forgetful->step().graphs().counts().replayed, 0);
    // Two tapes a step, each new twice for every power of two of pages: 1, 2 and 4.
    const GraphCache::Counts& counts = backend->step().graphs().counts();
    EXPECT_GE(counts.replayed, 2 * 40 - 2 * (3 + 1)) << counts.played << " " << counts.captured;
  }
}

TEST_F(CudaBackendTest, WhatDoesNotFitItsBlocksGoesInParts) {
  const auto roomy = Make(),
             tight = Make(Compute::kFp32, {.input_bytes = 4096, .result_bytes = 512});
  ToyDecoder whole(roomy.get()), in_parts(tight.get());
  for (const int64_t position : {0, 1, 200, 255}) {
    const ToyStep step = ToyStepAt(position, 60, 2);
    const ToyAnswer got = in_parts.Run(step);
    ASSERT_TRUE(got.status.ok()) << got.status;
    EXPECT_TRUE(got == whole.Run(step)) << "position " << position;
  }
  EXPECT_GT(tight->step().graphs().counts().played, 3 * roomy->step().graphs().counts().played);
}

TEST_F(CudaBackendTest, PartsOfASequenceListAnswerInTheirOwnPlaces) {
  constexpr int64_t kRows = 200, kCols = 8;
  const auto backend = Make(Compute::kFp32, {.input_bytes = 4096, .result_bytes = 512});
  const absl::StatusOr<Buffer> memory = backend->Allocate(2 * kRows * kCols * 4);
  ASSERT_TRUE(memory.ok()) << memory.status();
  auto* const data = reinterpret_cast<float*>(memory->data());
  const Activations x = {data, kRows, kCols, kCols};
  const Activations out = {data + kRows * kCols, kRows, kCols, kCols};
  std::vector<float> values(kRows * kCols), got(values.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  ASSERT_TRUE(backend->CopyToDevice(data, values.data(), kRows * kCols * 4).ok());
  std::vector<SequenceRows> sequences;
  for (int64_t row = 0; row < kRows; ++row) {
    sequences.push_back({.first_row = kRows - 1 - row, .num_rows = 1});
  }
  backend->Pool(x, sequences, Pooling::kMean, false, out);
  backend->CopyToHost(got.data(), out.data, kRows * kCols * 4);
  ASSERT_TRUE(backend->Finish().ok());
  EXPECT_GT(backend->step().graphs().counts().played, 1);
  for (size_t i = 0; i < got.size(); ++i) {
    const size_t row = kRows - 1 - i / kCols;
    ASSERT_EQ(got[i], values[row * kCols + i % kCols]) << i;
  }
}

}  // namespace
}  // namespace nibble::cuda
