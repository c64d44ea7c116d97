// Both spellings are turned to bytes side by side, so that the joined token is there too.
#include "engine/tokenizer/merge_reader.h"

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/status.h"
#include "engine/tokenizer/byte_level.h"

namespace nibble {

MergeReader::MergeReader(std::string_view file, const Vocabulary* vocabulary, size_t num_merges)
    : file_(file), vocabulary_(vocabulary), table_(num_merges) {}

absl::Status MergeReader::Refuse(std::string_view left, std::string_view right,
                                 std::string_view missing) const {
  return CorruptFile(file_,
                     absl::StrCat("merge ", rank_, ", ", Quoted(left), " and ", Quoted(right), ": ",
                                  Quoted(missing), " is not in the vocabulary"));
}

absl::Status MergeReader::Add(std::string_view text) {
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
    return CorruptFile(file_, absl::StrCat("merge ", rank_, ", ", Quoted(text),
                                           ", is not two tokens with a space between"));
  }
  return Add(text.substr(0, space), text.substr(space + 1));
}

absl::Status MergeReader::Add(std::string_view left, std::string_view right) {
  bytes_.clear();
  const bool left_bytes = AppendByteLevel(left, &bytes_);
  const size_t split = bytes_.size();
  const bool both = AppendByteLevel(right, &bytes_) && left_bytes;
  int32_t left_id, right_id, result;
  if (both) {
    const std::string_view bytes = bytes_;
    left_id = vocabulary_->Find(bytes.substr(0, split), Vocabulary::Kind::kBytes);
    right_id = vocabulary_->Find(bytes.substr(split), Vocabulary::Kind::kBytes);
    result = vocabulary_->Find(bytes, Vocabulary::Kind::kBytes);
  } else {
    left_id = vocabulary_->FindSpelled(left);
    right_id = vocabulary_->FindSpelled(right);
    result = vocabulary_->FindSpelled(absl::StrCat(Str(left), Str(right)));
  }
  if (left_id < 0) return Refuse(left, right, left);
  if (right_id < 0) return Refuse(left, right, right);
  if (result < 0) return Refuse(left, right, absl::StrCat(Str(left), Str(right)));
  table_.Set(left_id, right_id, {rank_++, result});
  return absl::OkStatus();
}

}  // namespace nibble
