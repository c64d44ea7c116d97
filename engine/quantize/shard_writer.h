// Safetensors files written as a stream into a directory that a killed run leaves in such a state
// that the next one goes on. Knows tensors as names, types and bytes, no model.
//
//   directory := journal shard*                                       while it is being written
//              | model.safetensors                                    at the end: one shard,
//              | model-00001-of-00003.safetensors … model.safetensors.index.json        or more
//   shard     := as engine/loader/safetensors.h tells; the header is padded with spaces to a size
//                that is reserved before the first tensor, and filled in at the end
//   journal   := "nibble shards 1\n" identity "\n" unit*
//   unit      := entry* "done " name "\n"
//   entry     := shard " " begin " " end " " dtype " " dimensions " " name "\n"
//                dimensions: "4096x64", "-" for a scalar; begin, end: offsets in the shard's data
//
// The journal is written after the data that it speaks of has reached the disk. What follows its
// last whole unit, there and in the shards, is cut off by the next run.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/fd.h"

namespace nibble {

struct ShardOptions {
  std::string identity;  // one line: what is written, from what; another one's journal is refused
  int64_t header_bytes = 0;         // enough for every entry of one shard; see HeaderBytes
  int64_t max_shard_bytes = 0;      // a unit that would pass it begins a new shard
  int64_t commit_bytes = 64 << 20;  // what a kill may cost
};

// Upper bound of an entry's part of a header.
int64_t HeaderBytes(std::string_view name);

// Not thread-safe. Any error leaves the writer useless; its directory may be taken up again.
class ShardWriter {
 public:
  // The directory exists. Takes up what an earlier run of the same identity has left there.
  // Errors: FAILED_PRECONDITION (another run writes there now; it holds another identity's work or
  // no journal's), RESOURCE_EXHAUSTED (disk full), INTERNAL.
  static absl::StatusOr<std::unique_ptr<ShardWriter>> Open(const std::string& directory,
                                                           const ShardOptions& options);

  // An earlier run has written this unit.
  bool Has(const std::string& unit) const { return done_.contains(unit); }
  int64_t units_taken_up() const { return units_taken_up_; }

  // A unit is what one run writes or leaves out as a whole: Begin, its entries, End.
  absl::Status Begin(int64_t expected_bytes);
  // An entry, then its bytes in any number of pieces, `bytes` in all.
  absl::Status AddEntry(std::string_view name, std::string_view dtype, std::vector<int64_t> shape,
                        int64_t bytes);
  absl::Status Write(std::span<const uint8_t> piece);
  absl::Status End(const std::string& unit);

  // Headers, index and final names; the journal goes. Call once, at the end.
  absl::Status Finish();

 private:
  struct Entry {
    int64_t shard = 0, begin = 0, end = 0;
    std::string dtype;
    std::vector<int64_t> shape;
    std::string name;
  };

  ShardWriter(std::string directory, ShardOptions options)
      : directory_(std::move(directory)), options_(std::move(options)) {}
  std::string PathOf(std::string_view file) const;
  std::string ShardName(int64_t shard) const;
  absl::Status TakeUp();
  absl::StatusOr<size_t> ReadUnits(std::string_view text);
  absl::Status OpenShard();
  absl::Status Commit();
  absl::Status WriteHeader(int64_t shard);
  absl::Status WriteIndex();

  const std::string directory_;
  const ShardOptions options_;
  Fd journal_, shard_;  // the shard is open from its first unit on
  std::vector<Entry> entries_;
  std::set<std::string> done_;
  int64_t units_taken_up_ = 0;
  int64_t num_shards_ = 0;
  int64_t end_ = 0;          // of the data in the open shard
  std::string uncommitted_;  // journal text whose data may not have reached the disk
  std::string unit_;         // journal text of the unit under way
  int64_t unsynced_bytes_ = 0;
};

}  // namespace nibble
