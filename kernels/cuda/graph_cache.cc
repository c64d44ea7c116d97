// Seen once: remember the hash. Seen twice: capture. The least recently used one makes room.
#include "kernels/cuda/graph_cache.h"

#include <algorithm>
#include <utility>

namespace nibble::cuda {

absl::Status GraphCache::Play(const Tape& tape, Stream* stream) {
  ++now_;
  const uint64_t hash = tape.Hash();
  if (Entry* const entry = Find(hash, tape); entry != nullptr) {
    entry->last_used = now_;
    if (entry->graph == nullptr) {
      ++counts_.played;
      return tape.Play(stream);
    }
    ++counts_.replayed;
    return IssueGraph(entry->graph.get(), stream);
  }
  if (Seen(hash)) return Capture(hash, tape, stream);
  ++counts_.played;
  return tape.Play(stream);
}

GraphCache::Entry* GraphCache::Find(uint64_t hash, const Tape& tape) {
  for (Entry& entry : entries_) {
    if (entry.hash == hash && entry.tape == tape) return &entry;
  }
  return nullptr;
}

bool GraphCache::Seen(uint64_t hash) {
  if (std::find(seen_.begin(), seen_.end(), hash) != seen_.end()) return true;
  seen_[next_seen_] = hash;
  next_seen_ = (next_seen_ + 1) % seen_.size();
  return false;
}

absl::Status GraphCache::Capture(uint64_t hash, const Tape& tape, Stream* stream) {
  absl::Status captured = BeginCapture(stream);
  OwnedGraph graph;
  if (captured.ok()) {
    captured = tape.Play(stream);
    // Whatever became of it, the stream must leave the capture.
    graph = Own<OwnedGraph>(EndCapture(stream), &captured);
  }
  if (!captured.ok()) {
    graph.reset();
    ++counts_.failed;
  }
  if (entries_.size() == kMaxGraphs) {
    const auto oldest =
        std::min_element(entries_.begin(), entries_.end(),
                         [](const Entry& a, const Entry& b) { return a.last_used < b.last_used; });
    *oldest = std::move(entries_.back());
    entries_.pop_back();
  }
  entries_.push_back({hash, tape, std::move(graph), now_});
  if (entries_.back().graph == nullptr) {
    ++counts_.played;
    return IsLost() ? captured : tape.Play(stream);
  }
  ++counts_.captured;
  return IssueGraph(entries_.back().graph.get(), stream);
}

void GraphCache::Clear() {
  entries_.clear();
  seen_.fill(0);
}

}  // namespace nibble::cuda
