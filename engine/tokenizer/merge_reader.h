// Merges as files write them, two tokens by their spelling, to a MergeTable.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/vocabulary.h"

namespace nibble {

// Ranks are the order of the calls. Errors are DATA_LOSS: a token that the vocabulary lacks, or
// lacks once the two are joined; a text that is not two tokens and one space between.
class MergeReader {
 public:
  // file: for messages. The vocabulary is byte-level and must outlive this.
  MergeReader(std::string_view file, const Vocabulary* vocabulary, size_t num_merges);

  absl::Status Add(std::string_view text);  // "left right"
  absl::Status Add(std::string_view left, std::string_view right);
  uint32_t num_merges() const { return rank_; }
  MergeTable Take() { return std::move(table_); }

 private:
  absl::Status Refuse(std::string_view left, std::string_view right,
                      std::string_view missing) const;

  std::string file_;
  const Vocabulary* vocabulary_;
  MergeTable table_;
  uint32_t rank_ = 0;
  std::string bytes_;  // scratch: of both tokens
};

}  // namespace nibble
