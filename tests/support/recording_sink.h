// A sink that keeps everything it hears, checks the order in which it hears it, and can be waited
// for.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/token_sink.h"

namespace nibble {

// Thread-safe.
class RecordingSink final : public TokenSink {
 public:
  // The pieces of one index put together.
  struct Answer {
    std::string text;
    std::vector<int32_t> token_ids;
    std::vector<TokenLogprobs> logprobs;
    std::vector<TokenLogprobs> prompt_logprobs;
    int chunks = 0;
    GenerateChunk last;  // how it ended
    bool finished() const { return last.finish_reason != FinishReason::kNone; }
  };

  void OnChunk(GenerateChunk chunk) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(dones_, 0) << "a chunk after OnDone";
    Answer& answer = answers_[chunk.index];
    EXPECT_FALSE(answer.finished()) << "a chunk after the last one of index " << chunk.index;
    EXPECT_TRUE(chunk.prompt_logprobs.empty() || (chunk.index == 0 && answer.chunks == 0));
    ++answer.chunks;
    answer.text += chunk.text;
    answer.token_ids.insert(answer.token_ids.end(), chunk.token_ids.begin(), chunk.token_ids.end());
    answer.logprobs.insert(answer.logprobs.end(), chunk.logprobs.begin(), chunk.logprobs.end());
    if (!chunk.prompt_logprobs.empty()) answer.prompt_logprobs = chunk.prompt_logprobs;
    answer.last = std::move(chunk);
    changed_.notify_all();
  }

  void OnEmbedding(EmbedResult result) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(dones_, 0) << "an embedding after OnDone";
    EXPECT_EQ(embeddings_++, 0) << "two embeddings";
    result_ = std::move(result);
  }

  void OnDone(const absl::Status& status) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(dones_++, 0) << "two ends";
    status_ = status;
    changed_.notify_all();
  }

  // Until OnDone; its status.
  absl::Status Wait() const {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return dones_ > 0; });
    return status_;
  }
  // Until the first chunk (or the end).
  void WaitForChunk() const {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !answers_.empty() || dones_ > 0; });
  }

  bool done() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return dones_ > 0;
  }
  absl::Status status() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return status_;
  }
  Answer answer(int32_t index = 0) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = answers_.find(index);
    return it == answers_.end() ? Answer() : it->second;
  }
  size_t num_answers() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return answers_.size();
  }
  EmbedResult result() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return result_;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::map<int32_t, Answer> answers_;
  EmbedResult result_;
  absl::Status status_ = absl::UnknownError("not done");
  int embeddings_ = 0;
  int dones_ = 0;
};

}  // namespace nibble
