// The hand-over of one stream from the engine thread to its gRPC reactor: bounded, coalescing,
// outliving either side. Knows chunks, no proto and no gRPC.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/token_sink.h"

namespace nibble {

// Thread-safe: the engine thread writes, the reactor reads.
// 1. A chunk that waits is joined by the next one of its index, until it holds kMessageBytes.
// 2. Chunks of one index leave in order.
// 3. What waits is bounded: when a chunk comes and more than max_bytes wait, the queue has
//    overflowed. It drops everything, now and later, and keeps only the status.
class TokenQueue : public TokenSink {
 public:
  static constexpr int64_t kMessageBytes = 64 << 10;

  // `on_ready` is called by the engine thread, outside the lock, whenever there may be something
  // new to read; it must not block.
  TokenQueue(int64_t max_bytes, std::function<void()> on_ready);

  void OnChunk(GenerateChunk chunk) override;
  void OnEmbedding(EmbedResult result) override;  // aborts: this is a Generate stream
  void OnDone(const absl::Status& status) override;

  // The next message, or none yet.
  std::optional<GenerateChunk> Pop();
  // The request's end, once everything before it was popped.
  std::optional<absl::Status> End() const;
  bool overflowed() const;
  // The reader has no use for more: drops what waits and what comes. The end is still kept.
  void Close();

 private:
  struct Pending {
    GenerateChunk chunk;
    int64_t bytes = 0;
  };
  void Add(GenerateChunk chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  const std::function<void()> on_ready_;
  mutable absl::Mutex mutex_;
  std::deque<Pending> pending_ ABSL_GUARDED_BY(mutex_);
  int64_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool overflowed_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
