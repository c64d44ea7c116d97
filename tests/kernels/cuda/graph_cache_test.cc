// Graphs of tapes: what comes again is replayed, and does the same.
#include "kernels/cuda/graph_cache.h"

#include <cstdint>
#include <vector>

#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

constexpr int64_t kBytes = 1024;

class GraphCacheTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    absl::Status status;
    host_ = Own<OwnedHost>(MallocHost(kBytes), &status);
    ASSERT_TRUE(status.ok()) << status;
    device_ = DeviceArray<uint8_t>(2 * kBytes);
  }

  // Fills the device's first half, then copies `bytes` from the host over it, then on to the
  // second half.
  Tape MakeTape(uint8_t value, int64_t bytes) const {
    Tape tape;
    tape.AddFill(device_.data(), value, kBytes);
    tape.AddCopy(device_.data(), host_.get(), bytes);
    tape.AddCopy(device_.data() + kBytes, device_.data(), kBytes);
    return tape;
  }
  void Play(const Tape& tape) {
    ASSERT_TRUE(cache_.Play(tape, GetTestDevice().stream).ok());
    ASSERT_TRUE(Synchronize(GetTestDevice().stream).ok());
  }

  OwnedHost host_;
  DeviceArray<uint8_t> device_;
  GraphCache cache_;
};

TEST_F(GraphCacheTest, CapturesWhatComesTwiceAndReplaysItWithNewInputs) {
  const Tape tape = MakeTape(7, 3);
  for (int step = 0; step < 5; ++step) {
    for (int i = 0; i < 3; ++i) host_.get()[i] = static_cast<char>(10 * step + i);
    Play(tape);
    const std::vector<uint8_t> got = device_.Get();
    for (int half = 0; half < 2; ++half) {
      for (size_t i = 0; i < kBytes; ++i) {
        const size_t want = i < 3 ? 10 * static_cast<size_t>(step) + i : 7;
        ASSERT_EQ(got[static_cast<size_t>(half) * kBytes + i], want) << "step " << step;
      }
    }
  }
  EXPECT_EQ(cache_.counts().played, 1);
  EXPECT_EQ(cache_.counts().captured, 1);
  EXPECT_EQ(cache_.counts().replayed, 3);
  EXPECT_EQ(cache_.size(), 1u);
}

TEST_F(GraphCacheTest, TapesThatDifferInOneByteAreApart) {
  for (int step = 0; step < 4; ++step) {
    for (const uint8_t value : {uint8_t{1}, uint8_t{2}}) {
      Play(MakeTape(value, 1));
      EXPECT_EQ(device_.Get()[5], value);
    }
  }
  EXPECT_EQ(cache_.size(), 2u);
  EXPECT_EQ(cache_.counts().replayed, 4);
}

TEST_F(GraphCacheTest, TheLeastRecentlyUsedMakesRoom) {
  const auto tape = [&](size_t i) {
    return MakeTape(static_cast<uint8_t>(i), static_cast<int64_t>(i) + 1);
  };
  for (size_t i = 0; i < kMaxGraphs; ++i) {
    Play(tape(i));
    Play(tape(i));
  }
  EXPECT_EQ(cache_.size(), kMaxGraphs);
  Play(tape(0));  // used again: the oldest is now 1
  for (int time = 0; time < 2; ++time) Play(tape(kMaxGraphs));
  EXPECT_EQ(cache_.size(), kMaxGraphs);
  const int64_t replayed = cache_.counts().replayed;
  Play(tape(0));
  Play(tape(kMaxGraphs));
  EXPECT_EQ(cache_.counts().replayed, replayed + 2);
  Play(tape(1));
  EXPECT_EQ(cache_.counts().replayed, replayed + 2) << "it was forgotten, so it is captured anew";
  EXPECT_EQ(device_.Get()[5], 1);
}

TEST_F(GraphCacheTest, ForgetsEverythingWhenAsked) {
  const Tape tape = MakeTape(9, 2);
  for (int step = 0; step < 3; ++step) Play(tape);
  cache_.Clear();
  EXPECT_EQ(cache_.size(), 0u);
  Play(tape);
  EXPECT_EQ(cache_.counts().played, 2);
  EXPECT_EQ(cache_.counts().replayed, 1);
  EXPECT_EQ(device_.Get()[5], 9);
}

}  // namespace
}  // namespace nibble::cuda
