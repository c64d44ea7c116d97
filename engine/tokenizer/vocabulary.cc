// Open addressing with linear probing, at most two slots in three taken; a slot keeps 32 bits of
// the hash so that a miss seldom touches the arena.
#include "engine/tokenizer/vocabulary.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/loader/errors.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/hash.h"

namespace nibble {
namespace {

constexpr int64_t kFreeHoles = 65536;  // how far ids may run past twice the number of tokens
constexpr uint64_t kMaxArenaBytes = std::numeric_limits<uint32_t>::max();

}  // namespace

Vocabulary::Vocabulary(std::string_view file, bool byte_level)
    : file_(file), byte_level_(byte_level), seed_(RandomSeed()) {}

absl::StatusOr<Vocabulary> Vocabulary::Make(std::string_view file, std::span<const Entry> entries,
                                            bool byte_level, size_t num_added) {
  Vocabulary vocabulary(file, byte_level);
  if (absl::Status status = vocabulary.CheckIds(entries); !status.ok()) return status;
  const size_t most = entries.size() + num_added;
  if (most > size_t{1} << 30) {
    return CorruptFile(file, absl::StrCat("has ", most, " tokens, wanted at most 2^30"));
  }
  vocabulary.slots_.resize(most + most / 2 + 1);
  uint64_t bytes = 0;
  for (const Entry& entry : entries) bytes += entry.spelled.size();
  if (bytes > kMaxArenaBytes) {
    return CorruptFile(file, absl::StrCat("has ", bytes, " bytes of tokens, wanted below 4 GiB"));
  }
  vocabulary.arena_.reserve(bytes);
  std::string decoded;
  for (const Entry& entry : entries) {
    decoded.clear();
    const bool is_bytes = byte_level && AppendByteLevel(entry.spelled, &decoded);
    absl::Status status = vocabulary.Store(entry, is_bytes ? Kind::kBytes : Kind::kText,
                                           is_bytes ? decoded : entry.spelled);
    if (!status.ok()) return status;
  }
  vocabulary.num_model_tokens_ = static_cast<int32_t>(entries.size());
  return vocabulary;
}

absl::Status Vocabulary::CheckIds(std::span<const Entry> entries) const {
  const int64_t end = 2 * static_cast<int64_t>(entries.size()) + kFreeHoles;
  for (const Entry& entry : entries) {
    if (entry.id >= 0 && entry.id < end) continue;
    return CorruptFile(
        file_, absl::StrCat("token ", Quoted(entry.spelled), " has id ", entry.id, ", wanted 0…",
                            end - 1, " of ", entries.size(), " tokens"));
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::Add(std::string_view text, int64_t id) {
  const int64_t end = 2 * static_cast<int64_t>(slots_.size()) + kFreeHoles;
  if (id < 0 || id >= end) {
    return CorruptFile(file_, absl::StrCat("added token ", Quoted(text), " has id ", id));
  }
  if (arena_.size() + text.size() > kMaxArenaBytes) {
    return CorruptFile(file_, "has 4 GiB of tokens or more");
  }
  return Store({text, id}, Kind::kAdded, text);
}

absl::Status Vocabulary::Store(const Entry& entry, Kind kind, std::string_view text) {
  const auto id = static_cast<size_t>(entry.id);
  if (id >= kinds_.size()) {
    kinds_.resize(id + 1, Kind::kHole);
    extents_.resize(id + 1);
  }
  const auto next = static_cast<int32_t>(id);
  if (kinds_[id] != Kind::kHole) {
    return CorruptFile(file_, absl::StrCat("tokens ", Quoted(Text(next)), " and ",
                                           Quoted(entry.spelled), " both have id ", entry.id));
  }
  const uint64_t hash = Hash(text, kind);
  const auto size = static_cast<uint32_t>(slots_.size());
  uint32_t at = SlotOf(hash, size);
  for (; slots_[at].id >= 0; at = at + 1 == size ? 0 : at + 1) {
    if (slots_[at].tag != static_cast<uint32_t>(hash)) continue;
    if (kinds_[static_cast<size_t>(slots_[at].id)] != kind || Text(slots_[at].id) != text) continue;
    return CorruptFile(file_, absl::StrCat("token ", Quoted(entry.spelled), " has two ids, ",
                                           slots_[at].id, " and ", entry.id));
  }
  slots_[at] = {static_cast<uint32_t>(hash), next};
  kinds_[id] = kind;
  extents_[id] = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(text.size())};
  arena_.append(text);
  max_text_bytes_ = std::max(max_text_bytes_, text.size());
  return absl::OkStatus();
}

void Vocabulary::Shrink() {
  arena_.shrink_to_fit();
  extents_.shrink_to_fit();
  kinds_.shrink_to_fit();
}

uint64_t Vocabulary::Hash(std::string_view text, Kind kind) const {
  return HashBytes(text, seed_ + static_cast<uint64_t>(kind) * kHashMultiplier);
}

int32_t Vocabulary::Find(std::string_view text, Kind kind) const {
  if (text.size() > max_text_bytes_) return -1;
  const uint64_t hash = Hash(text, kind);
  const auto size = static_cast<uint32_t>(slots_.size());
  for (uint32_t at = SlotOf(hash, size); slots_[at].id >= 0; at = at + 1 == size ? 0 : at + 1) {
    if (slots_[at].tag != static_cast<uint32_t>(hash)) continue;
    const int32_t id = slots_[at].id;
    if (this->kind(id) == kind && Text(id) == text) return id;
  }
  return -1;
}

int32_t Vocabulary::FindSpelled(std::string_view spelled) const {
  if (!byte_level_) return Find(spelled, Kind::kText);
  std::string bytes;
  if (AppendByteLevel(spelled, &bytes)) return Find(bytes, Kind::kBytes);
  return Find(spelled, Kind::kText);
}

int64_t Vocabulary::MemoryBytes() const {
  return static_cast<int64_t>(arena_.capacity() + extents_.capacity() * sizeof(Extent) +
                              kinds_.capacity() * sizeof(Kind) + slots_.capacity() * sizeof(Slot));
}

}  // namespace nibble
