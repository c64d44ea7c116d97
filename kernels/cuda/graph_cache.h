// CUDA graphs by the tape that they were captured from: a step that comes again is issued in one
// call. Knows no operation.
// Thread rule: one thread, the engine's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/owned.h"
#include "kernels/cuda/tape.h"

namespace nibble::cuda {

inline constexpr size_t kMaxGraphs = 64;
// What the driver may take for one: a decode step of a large model has some 800 nodes of about
// 1 KB, and memory comes in pieces of 2 MiB. Not measured on a GPU.
inline constexpr int64_t kGraphBytes = int64_t{2} << 20;
inline constexpr int64_t kGraphReserveBytes = static_cast<int64_t>(kMaxGraphs) * kGraphBytes;

// 1. A graph is replayed only for a tape with the very bytes it was captured from.
// 2. A tape that could not be captured is played as it is, and not captured again.
class GraphCache {
 public:
  struct Counts {
    int64_t played = 0;    // entry by entry
    int64_t captured = 0;  // and then replayed for the first time
    int64_t replayed = 0;
    int64_t failed = 0;  // captures
  };

  // Does what the tape says: plays it the first time, captures it the second, replays it from then
  // on. Errors: INTERNAL, of what was issued.
  absl::Status Play(const Tape& tape, Stream* stream);
  // Forgets every graph. Nothing issued may still run.
  void Clear();

  size_t size() const { return entries_.size(); }
  const Counts& counts() const { return counts_; }

 private:
  struct Entry {
    uint64_t hash = 0;
    Tape tape;
    OwnedGraph graph;  // null: it could not be captured
    int64_t last_used = 0;
  };
  Entry* Find(uint64_t hash, const Tape& tape);
  // True from the second time on, unless many others came between.
  bool Seen(uint64_t hash);
  absl::Status Capture(uint64_t hash, const Tape& tape, Stream* stream);
  absl::Status Issue(const Entry& entry, Stream* stream);

  std::vector<Entry> entries_;  // at most kMaxGraphs
  std::array<uint64_t, 4 * kMaxGraphs> seen_ = {};
  size_t next_seen_ = 0;
  int64_t now_ = 0;  // counts calls
  Counts counts_;
};

}  // namespace nibble::cuda
