// The hand-over of one stream: joining, bounds, order, ends.
#include "service/token_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace nibble {
namespace {

GenerateChunk Chunk(int index, std::string text) {
  GenerateChunk chunk;
  chunk.index = index;
  chunk.text = std::move(text);
  chunk.token_ids = {static_cast<int32_t>(chunk.text.size())};
  return chunk;
}

class TokenQueueTest : public ::testing::Test {
 protected:
  int ready_ = 0;
  TokenQueue queue_{1 << 20, [this] { ++ready_; }};
};

TEST_F(TokenQueueTest, IsEmptyAndEndlessAtFirst) {
  EXPECT_FALSE(queue_.Pop().has_value());
  EXPECT_FALSE(queue_.End().has_value());
}

TEST_F(TokenQueueTest, JoinsWhatWaitsOfOneIndex) {
  queue_.OnChunk(Chunk(0, "a"));
  queue_.OnChunk(Chunk(1, "x"));
  queue_.OnChunk(Chunk(0, "bc"));
  const auto first = queue_.Pop();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->text, "abc");
  EXPECT_EQ(first->token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(queue_.Pop()->text, "x");
  EXPECT_FALSE(queue_.Pop().has_value());
  EXPECT_EQ(ready_, 3);
}

TEST_F(TokenQueueTest, AJoinedChunkKeepsTheEndOfItsIndex) {
  queue_.OnChunk(Chunk(0, "a"));
  GenerateChunk last = Chunk(0, "b");
  last.finish_reason = FinishReason::kStop;
  last.stop_token_id = 7;
  last.usage.completion_tokens = 2;
  last.timing.decode_ms = 3;
  last.model = "m";
  last.seed = 9;
  queue_.OnChunk(last);
  const auto joined = queue_.Pop();
  ASSERT_TRUE(joined.has_value());
  EXPECT_EQ(joined->text, "ab");
  EXPECT_EQ(joined->finish_reason, FinishReason::kStop);
  EXPECT_EQ(joined->stop_token_id, 7);
  EXPECT_EQ(joined->usage.completion_tokens, 2);
  EXPECT_EQ(joined->timing.decode_ms, 3);
  EXPECT_EQ(joined->model, "m");
  EXPECT_EQ(joined->seed, 9u);
}

TEST_F(TokenQueueTest, AJoinedChunkKeepsThePromptsLogprobs) {
  GenerateChunk first = Chunk(0, "a");
  first.prompt_logprobs.push_back({1, "p", -1.0f, {}});
  first.logprobs.push_back({2, "q", -2.0f, {}});
  queue_.OnChunk(first);
  GenerateChunk second = Chunk(0, "b");
  second.logprobs.push_back({3, "r", -3.0f, {}});
  queue_.OnChunk(second);
  const auto joined = queue_.Pop();
  ASSERT_EQ(joined->prompt_logprobs.size(), 1u);
  ASSERT_EQ(joined->logprobs.size(), 2u);
  EXPECT_EQ(joined->logprobs[1].token_id, 3);
}

TEST_F(TokenQueueTest, NoMessageGrowsPastItsBound) {
  const std::string text(10'000, 'x');
  for (int i = 0; i < 20; ++i) queue_.OnChunk(Chunk(0, text));
  size_t total = 0;
  int messages = 0;
  while (const auto chunk = queue_.Pop()) {
    EXPECT_LE(chunk->text.size(), static_cast<size_t>(TokenQueue::kMessageBytes));
    total += chunk->text.size();
    ++messages;
  }
  EXPECT_EQ(total, 200'000u);
  EXPECT_GT(messages, 2);
}

TEST_F(TokenQueueTest, TheEndComesAfterEverythingElse) {
  queue_.OnChunk(Chunk(0, "a"));
  queue_.OnDone(absl::InternalError("broken"));
  EXPECT_FALSE(queue_.End().has_value());
  EXPECT_EQ(queue_.Pop()->text, "a");
  EXPECT_EQ(queue_.End(), absl::InternalError("broken"));
}

TEST(TokenQueue, OneChunkOfAnySizeMayWaitAlone) {
  TokenQueue queue(100, [] {});
  queue.OnChunk(Chunk(0, std::string(100'000, 'x')));
  EXPECT_FALSE(queue.overflowed());
  EXPECT_EQ(queue.Pop()->text.size(), 100'000u);
}

TEST(TokenQueue, OverflowsWhenItsReaderDoesNotRead) {
  int ready = 0;
  TokenQueue queue(100, [&] { ++ready; });
  queue.OnChunk(Chunk(0, std::string(1000, 'x')));
  queue.OnChunk(Chunk(0, "y"));
  EXPECT_TRUE(queue.overflowed());
  EXPECT_EQ(ready, 2) << "the reader has to hear of it";
  EXPECT_FALSE(queue.Pop().has_value());
  queue.OnChunk(Chunk(0, "z"));
  EXPECT_FALSE(queue.Pop().has_value()) << "an answer with a hole must not go on";
  queue.OnDone(absl::AbortedError("slow"));
  EXPECT_EQ(queue.End(), absl::AbortedError("slow"));
}

TEST(TokenQueue, DropsEverythingButTheEndOnceClosed) {
  TokenQueue queue(1 << 20, [] {});
  queue.OnChunk(Chunk(0, "a"));
  queue.Close();
  queue.OnChunk(Chunk(0, "b"));
  EXPECT_FALSE(queue.Pop().has_value());
  EXPECT_FALSE(queue.End().has_value());
  queue.OnDone(absl::CancelledError());
  EXPECT_EQ(queue.End(), absl::CancelledError());
}

TEST(TokenQueue, LosesNothingBetweenTwoThreads) {
  constexpr int kChunks = 20'000;
  absl::Mutex mutex;
  int told = 0;
  TokenQueue queue(1 << 30, [&] {
    absl::MutexLock lock(&mutex);
    ++told;
  });
  std::thread engine([&] {
    for (int i = 0; i < kChunks; ++i)
      queue.OnChunk(Chunk(i % 3, std::string(1, static_cast<char>('a' + i % 3))));
    queue.OnDone(absl::OkStatus());
  });
  std::string text[3];
  while (!queue.End().has_value()) {
    while (const auto chunk = queue.Pop()) text[chunk->index] += chunk->text;
    absl::MutexLock lock(&mutex);
    // A Condition may be evaluated any number of times, so it must change nothing itself.
    const auto more = [&] { return told > 0; };
    if (!queue.End().has_value()) mutex.Await(absl::Condition(&more));
    told = 0;
  }
  engine.join();
  EXPECT_EQ(text[0] + text[1] + text[2],
            std::string(6667, 'a') + std::string(6667, 'b') + std::string(6666, 'c'));
}

TEST(TokenQueueDeathTest, AbortsOnAnEmbedding) {
  TokenQueue queue(1, [] {});
  EXPECT_DEATH(queue.OnEmbedding({}), "");
}

}  // namespace
}  // namespace nibble
