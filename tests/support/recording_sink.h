// A sink that keeps everything it hears, checks the order in which it hears it, and can be waited
// for.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
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
    const absl::MutexLock lock(&mutex_);
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
  }

  void OnEmbedding(EmbedResult result) override {
    const absl::MutexLock lock(&mutex_);
    EXPECT_EQ(dones_, 0) << "an embedding after OnDone";
    EXPECT_EQ(embeddings_++, 0) << "two embeddings";
    result_ = std::move(result);
  }

  void OnDone(const absl::Status& status) override {
    const absl::MutexLock lock(&mutex_);
    EXPECT_EQ(dones_++, 0) << "two ends";
    status_ = status;
  }

  // Until OnDone; its status.
  absl::Status Wait() const {
    const absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &RecordingSink::DoneLocked));
    return status_;
  }
  // Until the first chunk (or the end).
  void WaitForChunk() const {
    const absl::MutexLock lock(&mutex_);
    const auto begun = [this] { return !answers_.empty() || dones_ > 0; };
    mutex_.Await(absl::Condition(&begun));
  }

  bool done() const {
    const absl::MutexLock lock(&mutex_);
    return dones_ > 0;
  }
  absl::Status status() const {
    const absl::MutexLock lock(&mutex_);
    return status_;
  }
  Answer answer(int32_t index = 0) const {
    const absl::MutexLock lock(&mutex_);
    const auto it = answers_.find(index);
    return it == answers_.end() ? Answer() : it->second;
  }
  size_t num_answers() const {
    const absl::MutexLock lock(&mutex_);
    return answers_.size();
  }
  EmbedResult result() const {
    const absl::MutexLock lock(&mutex_);
    return result_;
  }

 private:
  bool DoneLocked() const { return dones_ > 0; }

  mutable absl::Mutex mutex_;
  std::map<int32_t, Answer> answers_;
  EmbedResult result_;
  absl::Status status_ = absl::UnknownError("not done");
  int embeddings_ = 0;
  int dones_ = 0;
};

}  // namespace nibble
