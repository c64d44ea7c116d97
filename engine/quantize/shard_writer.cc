// Plain writes, one fdatasync per some megabytes, a line of journal after each.
#include "engine/quantize/shard_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/check.h"
#include "engine/loader/errors.h"
#include "engine/loader/mapped_file.h"
#include "engine/quantize/output.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr char kJournal[] = "journal";
constexpr char kMagic[] = "nibble shards 1";
constexpr int64_t kMaxJournalBytes = 256 << 20;

absl::Status Rename(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return WriteFailed(BaseName(to), errno);
}

// A name in JSON: tensors' names are ASCII but for quotes and the like, which are escaped.
std::string JsonName(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20) {
      absl::StrAppendFormat(&out, "\\u%04x", byte);
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

absl::Status NotOurs(const std::string& directory, std::string_view why) {
  return Error(absl::StatusCode::kFailedPrecondition, "PARTIAL_NOT_OURS",
               absl::StrCat(BaseName(directory), ": ", Str(why), "; remove it to begin anew"));
}

std::string FinalName(int64_t shard, int64_t num_shards) {
  if (num_shards == 1) return "model.safetensors";
  return absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, num_shards);
}

std::string DimensionsText(const std::vector<int64_t>& shape) {
  return shape.empty() ? "-" : absl::StrJoin(shape, "x");
}

bool ParseDimensions(absl::string_view text, std::vector<int64_t>* shape) {
  if (text == "-") return true;
  for (const absl::string_view part : absl::StrSplit(text, 'x')) {
    if (!absl::SimpleAtoi(part, &shape->emplace_back())) return false;
  }
  return true;
}

}  // namespace

int64_t HeaderBytes(std::string_view name) {
  constexpr int64_t kFixed = 192;  // dtype, two dimensions and two offsets of 19 digits, brackets
  return kFixed + 6 * static_cast<int64_t>(name.size());
}

std::string ShardWriter::PathOf(std::string_view file) const {
  return absl::StrCat(directory_, "/", Str(file));
}

std::string ShardWriter::ShardName(int64_t shard) const {
  return absl::StrFormat("shard-%05d", shard + 1);
}

absl::StatusOr<std::unique_ptr<ShardWriter>> ShardWriter::Open(const std::string& directory,
                                                               const ShardOptions& options) {
  std::unique_ptr<ShardWriter> writer(new ShardWriter(directory, options));
  // What stands there without a journal is someone else's, or a run that was killed while it gave
  // its files their last names.
  std::error_code ignored;
  if (!PathExists(writer->PathOf(kJournal)) && !std::filesystem::is_empty(directory, ignored)) {
    return NotOurs(directory, "holds files and no journal");
  }
  writer->journal_ =
      Fd(open(writer->PathOf(kJournal).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!writer->journal_) return WriteFailed(kJournal, errno);
  if (flock(writer->journal_.get(), LOCK_EX | LOCK_NB) != 0) {
    return NotOurs(directory, "another run is writing it now; wait for that one");
  }
  if (absl::Status status = writer->TakeUp(); !status.ok()) return status;
  return writer;
}

// Reads the journal of an earlier run, if there is one, and cuts off what was not whole.
absl::Status ShardWriter::TakeUp() {
  const std::string head = absl::StrCat(kMagic, "\n", options_.identity, "\n");
  absl::StatusOr<std::string> text = ReadTextFile(PathOf(kJournal), kMaxJournalBytes);
  if (!text.ok()) return text.status();
  // A run that was killed before its first unit has nothing to lose, whatever it was.
  const bool has_unit = text->find("\ndone ") != std::string::npos;
  if (!text->empty() && !text->starts_with(absl::StrCat(kMagic, "\n"))) {
    return NotOurs(directory_, "its journal is no journal of ours");
  }
  size_t whole = 0;
  if (has_unit) {
    if (text->rfind(head, 0) != 0) {
      return NotOurs(directory_, "was begun with other options or from other files");
    }
    const absl::StatusOr<size_t> units = ReadUnits(std::string_view{*text}.substr(head.size()));
    if (!units.ok()) return units.status();
    whole = head.size() + *units;
  } else {
    absl::Status status = WriteAt(journal_.get(), kJournal, head, 0);
    if (!status.ok()) return status;
    whole = head.size();
  }
  if (ftruncate(journal_.get(), static_cast<off_t>(whole)) != 0) {
    return WriteFailed(kJournal, errno);
  }
  units_taken_up_ = static_cast<int64_t>(done_.size());
  if (num_shards_ == 0) return absl::OkStatus();
  const std::string shard = ShardName(num_shards_ - 1);
  shard_ = Fd(open(PathOf(shard).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct stat info = {};
  const int64_t wanted = 8 + options_.header_bytes + end_;
  if (!shard_ || fstat(shard_.get(), &info) != 0 || info.st_size < wanted) {
    return NotOurs(directory_, absl::StrCat(shard, " is shorter than the journal says"));
  }
  return ftruncate(shard_.get(), static_cast<off_t>(wanted)) == 0 ? absl::OkStatus()
                                                                  : WriteFailed(shard, errno);
}

// How many bytes of the journal's text are whole units.
absl::StatusOr<size_t> ShardWriter::ReadUnits(std::string_view text) {
  constexpr std::string_view kDone = "done ";
  size_t whole = 0;
  std::vector<Entry> unit;
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string_view::npos;
       begin = end + 1) {
    const std::string_view line = text.substr(begin, end - begin);
    if (line.starts_with(kDone)) {
      for (Entry& entry : unit) {
        num_shards_ = std::max(num_shards_, entry.shard + 1);
        end_ = entry.end;
        entries_.push_back(std::move(entry));
      }
      unit.clear();
      done_.insert(std::string(line.substr(kDone.size())));
      whole = end + 1;
      continue;
    }
    const std::vector<std::string> fields =
        absl::StrSplit(absl::string_view(line.data(), line.size()), absl::MaxSplits(' ', 5));
    Entry entry;
    if (fields.size() != 6 || !absl::SimpleAtoi(fields[0], &entry.shard) ||
        !absl::SimpleAtoi(fields[1], &entry.begin) || !absl::SimpleAtoi(fields[2], &entry.end) ||
        !ParseDimensions(fields[4], &entry.shape)) {
      return NotOurs(directory_, "its journal is damaged");
    }
    entry.dtype = fields[3];
    entry.name = fields[5];
    unit.push_back(std::move(entry));
  }
  return whole;
}

absl::Status ShardWriter::OpenShard() {
  const std::string shard = ShardName(num_shards_);
  shard_ =
      Fd(open(PathOf(shard).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!shard_) return WriteFailed(shard, errno);
  ++num_shards_;
  end_ = 0;
  return absl::OkStatus();
}

absl::Status ShardWriter::Begin(int64_t expected_bytes) {
  Check(unit_.empty(), "a unit ends before the next begins");
  if (num_shards_ > 0 && (end_ == 0 || end_ + expected_bytes <= options_.max_shard_bytes)) {
    return absl::OkStatus();
  }
  if (absl::Status status = Commit(); !status.ok()) return status;
  return OpenShard();
}

absl::Status ShardWriter::AddEntry(std::string_view name, std::string_view dtype,
                                   std::vector<int64_t> shape, int64_t bytes) {
  Check(entries_.empty() || entries_.back().shard < num_shards_ - 1 || entries_.back().end == end_,
        "an entry is whole before the next begins");
  Entry entry = {num_shards_ - 1, end_, end_ + bytes, Str(dtype), std::move(shape), Str(name)};
  absl::StrAppend(&unit_, entry.shard, " ", entry.begin, " ", entry.end, " ", entry.dtype, " ",
                  DimensionsText(entry.shape), " ", entry.name, "\n");
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::Status ShardWriter::Write(std::span<const uint8_t> piece) {
  absl::Status status =
      WriteAt(shard_.get(), ShardName(num_shards_ - 1), piece, 8 + options_.header_bytes + end_);
  end_ += static_cast<int64_t>(piece.size());
  unsynced_bytes_ += static_cast<int64_t>(piece.size());
  return status;
}

absl::Status ShardWriter::End(const std::string& unit) {
  Check(entries_.empty() || entries_.back().end == end_, "every entry of a unit is whole");
  absl::StrAppend(&uncommitted_, std::exchange(unit_, {}), "done ", unit, "\n");
  done_.insert(unit);
  return unsynced_bytes_ >= options_.commit_bytes ? Commit() : absl::OkStatus();
}

// First the data, then the lines that speak of it.
absl::Status ShardWriter::Commit() {
  if (uncommitted_.empty()) return absl::OkStatus();
  if (absl::Status status = Sync(shard_.get(), ShardName(num_shards_ - 1)); !status.ok()) {
    return status;
  }
  const off_t at = lseek(journal_.get(), 0, SEEK_END);
  if (absl::Status status = WriteAt(journal_.get(), kJournal, uncommitted_, at); !status.ok()) {
    return status;
  }
  uncommitted_.clear();
  unsynced_bytes_ = 0;
  return Sync(journal_.get(), kJournal);
}

absl::Status ShardWriter::WriteHeader(int64_t shard) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  for (const Entry& entry : entries_) {
    if (entry.shard != shard) continue;
    absl::StrAppend(&header, ",", JsonName(entry.name), ":{\"dtype\":\"", entry.dtype,
                    "\",\"shape\":[", absl::StrJoin(entry.shape, ","), "],\"data_offsets\":[",
                    entry.begin, ",", entry.end, "]}");
  }
  header += '}';
  Check(static_cast<int64_t>(header.size()) <= options_.header_bytes, "a header fits its room");
  header.resize(static_cast<size_t>(options_.header_bytes), ' ');
  const auto size = static_cast<uint64_t>(options_.header_bytes);
  header.insert(0, reinterpret_cast<const char*>(&size), sizeof(size));
  const std::string name = ShardName(shard);
  const Fd file(open(PathOf(name).c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return WriteFailed(name, errno);
  if (absl::Status status = WriteAt(file.get(), name, header, 0); !status.ok()) return status;
  return Sync(file.get(), name);
}

absl::Status ShardWriter::WriteIndex() {
  int64_t total = 0;
  std::map<std::string, int64_t> shard_of;
  for (const Entry& entry : entries_) {
    total += entry.end - entry.begin;
    shard_of[entry.name] = entry.shard;
  }
  std::string text = absl::StrCat("{\n  \"metadata\": {\n    \"total_size\": ", total,
                                  "\n  },\n  \"weight_map\": {");
  const char* separator = "\n";
  for (const auto& [name, shard] : shard_of) {
    absl::StrAppend(&text, separator, "    ", JsonName(name), ": ",
                    JsonName(FinalName(shard, num_shards_)));
    separator = ",\n";
  }
  absl::StrAppend(&text, "\n  }\n}\n");
  constexpr char kIndex[] = "model.safetensors.index.json";
  return WriteTextFile(PathOf(kIndex), text);
}

absl::Status ShardWriter::Finish() {
  Check(unit_.empty() && num_shards_ > 0, "there is something, and all of it is whole");
  if (absl::Status status = Commit(); !status.ok()) return status;
  for (int64_t shard = 0; shard < num_shards_; ++shard) {
    if (absl::Status status = WriteHeader(shard); !status.ok()) return status;
  }
  if (num_shards_ > 1) {
    if (absl::Status status = WriteIndex(); !status.ok()) return status;
  }
  // From here on the directory cannot be taken up: it says so by having no journal.
  if (unlink(PathOf(kJournal).c_str()) != 0) return WriteFailed(kJournal, errno);
  for (int64_t shard = 0; shard < num_shards_; ++shard) {
    absl::Status status = Rename(PathOf(ShardName(shard)), PathOf(FinalName(shard, num_shards_)));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace nibble
