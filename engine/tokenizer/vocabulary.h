// The texts of all tokens in one arena, and a hash table from text to id. Flat arrays only, so that
// MemoryBytes is exact. Knows no algorithm that makes tokens.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nibble {

// Immutable after Shrink; then thread-safe. Ids may have holes, whose text is empty.
class Vocabulary {
 public:
  enum class Kind : uint8_t {
    kHole,
    kBytes,  // of the model, spelled in the byte-level alphabet: Text holds the bytes meant
    kText,   // of the model, as spelled
    kAdded,  // an added token that the model does not have, as spelled
  };
  struct Entry {
    std::string_view spelled;  // valid UTF-8
    int64_t id = 0;
  };

  // file: for messages. num_added: how many Add calls may follow. Errors: DATA_LOSS for an id
  // twice, a text twice, an id that is negative or beyond twice the number of entries.
  static absl::StatusOr<Vocabulary> Make(std::string_view file, std::span<const Entry> entries,
                                         bool byte_level, size_t num_added);
  // Adds a token of kind kAdded under an id that is free. Errors: DATA_LOSS.
  absl::Status Add(std::string_view text, int64_t id);
  // Gives spare memory back; nothing may be added afterwards.
  void Shrink();

  int32_t size() const { return static_cast<int32_t>(kinds_.size()); }
  int32_t num_model_tokens() const { return num_model_tokens_; }
  Kind kind(int32_t id) const { return kinds_[static_cast<size_t>(id)]; }
  std::string_view Text(int32_t id) const {
    const Extent& extent = extents_[static_cast<size_t>(id)];
    return std::string_view{arena_}.substr(extent.begin, extent.length);
  }
  size_t max_text_bytes() const { return max_text_bytes_; }

  // -1 when there is none.
  int32_t Find(std::string_view text, Kind kind) const;
  // The model's token that the file spells so (in the byte-level alphabet if the model is such).
  int32_t FindSpelled(std::string_view spelled) const;

  int64_t MemoryBytes() const;  // on the heap

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  struct Extent {
    uint32_t begin = 0;
    uint32_t length = 0;
  };

  Vocabulary(std::string_view file, bool byte_level);
  absl::Status Store(const Entry& entry, Kind kind, std::string_view text);
  absl::Status CheckIds(std::span<const Entry> entries) const;
  uint64_t Hash(std::string_view text, Kind kind) const;

  std::string file_;
  bool byte_level_ = false;
  uint64_t seed_ = 0;
  int32_t num_model_tokens_ = 0;
  size_t max_text_bytes_ = 0;
  std::string arena_;
  std::vector<Extent> extents_;
  std::vector<Kind> kinds_;
  std::vector<Slot> slots_;
};

}  // namespace nibble
