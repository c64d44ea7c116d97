// Joins and bounds the chunks of one stream; see the header for the invariants.
#include "service/token_queue.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

namespace nibble {
namespace {

int64_t BytesOf(const std::vector<TokenLogprobs>& logprobs) {
  int64_t bytes = 0;
  for (const TokenLogprobs& entry : logprobs) {
    bytes += static_cast<int64_t>(sizeof(entry) + entry.token.size());
    for (const LogprobTop& top : entry.top) {
      bytes += static_cast<int64_t>(sizeof(top) + top.token.size());
    }
  }
  return bytes;
}

// About what a chunk holds in memory, which is no less than what it takes on the wire.
int64_t BytesOf(const GenerateChunk& chunk) {
  return static_cast<int64_t>(sizeof(chunk) + chunk.text.size() +
                              chunk.token_ids.size() * sizeof(int32_t)) +
         BytesOf(chunk.logprobs) + BytesOf(chunk.prompt_logprobs);
}

template <typename T>
void Append(std::vector<T>* to, std::vector<T>&& from) {
  to->insert(to->end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

// Adds `next` to `chunk`, which is of the same index and not its end.
void Join(GenerateChunk* chunk, GenerateChunk&& next) {
  chunk->text += next.text;
  Append(&chunk->token_ids, std::move(next.token_ids));
  Append(&chunk->logprobs, std::move(next.logprobs));
  Append(&chunk->prompt_logprobs, std::move(next.prompt_logprobs));
  chunk->finish_reason = next.finish_reason;
  chunk->stop_token_id = next.stop_token_id;
  chunk->stop_text = std::move(next.stop_text);
  chunk->usage = next.usage;
  chunk->timing = next.timing;
  chunk->model = std::move(next.model);
  chunk->seed = next.seed;
}

}  // namespace

TokenQueue::TokenQueue(int64_t max_bytes, std::function<void()> on_ready)
    : max_bytes_(max_bytes), on_ready_(std::move(on_ready)) {}

void TokenQueue::OnChunk(GenerateChunk chunk) {
  {
    absl::MutexLock lock(&mutex_);
    if (closed_ || overflowed_) return;
    if (pending_bytes_ > max_bytes_) {
      overflowed_ = true;
      Drop();
    } else {
      Add(std::move(chunk));
    }
  }
  on_ready_();
}

void TokenQueue::OnEmbedding(EmbedResult) { std::abort(); }

void TokenQueue::OnDone(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    end_ = status;
  }
  on_ready_();
}

std::optional<GenerateChunk> TokenQueue::Pop() {
  absl::MutexLock lock(&mutex_);
  if (pending_.empty()) return std::nullopt;
  std::optional<GenerateChunk> chunk = std::move(pending_.front().chunk);
  pending_bytes_ -= pending_.front().bytes;
  pending_.pop_front();
  return chunk;
}

std::optional<absl::Status> TokenQueue::End() const {
  absl::MutexLock lock(&mutex_);
  return pending_.empty() ? end_ : std::nullopt;
}

bool TokenQueue::overflowed() const {
  absl::MutexLock lock(&mutex_);
  return overflowed_;
}

void TokenQueue::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  Drop();
}

void TokenQueue::Add(GenerateChunk chunk) {
  const int64_t bytes = BytesOf(chunk);
  pending_bytes_ += bytes;
  const auto last = std::find_if(pending_.rbegin(), pending_.rend(), [&](const Pending& entry) {
    return entry.chunk.index == chunk.index;
  });
  if (last != pending_.rend() && last->bytes + bytes <= kMessageBytes) {
    Join(&last->chunk, std::move(chunk));
    last->bytes += bytes;
  } else {
    pending_.push_back({std::move(chunk), bytes});
  }
}

void TokenQueue::Drop() {
  pending_.clear();
  pending_bytes_ = 0;
}

}  // namespace nibble
