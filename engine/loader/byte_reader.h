// A cursor over a file's bytes that never reads past their end. Knows little-endian numbers and
// length-prefixed strings, not what they mean.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/status.h"

namespace nibble {

// The first failure sticks; reads after it give zeros and empty spans. `what` names in messages
// what is being read.
class ByteReader {
 public:
  ByteReader(std::string_view file, std::span<const uint8_t> bytes) : file_(file), bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  // Not an error: what follows could still be this long.
  bool Holds(uint64_t count, uint64_t bytes_each) const {
    return count <= remaining() / bytes_each;
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  void Corrupt(std::string_view what) {
    Fail(CorruptFile(file_, absl::StrCat(Str(what), " (byte ", position_, ")")));
  }

  std::span<const uint8_t> Take(uint64_t count, std::string_view what) {
    if (!ok()) return {};
    if (count > remaining()) {
      Corrupt(absl::StrCat("ends inside ", Str(what), ", which needs ", count, " bytes of ",
                           remaining()));
      return {};
    }
    const auto taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  template <typename T>
  T Number(std::string_view what) {
    T value{};
    const auto raw = Take(sizeof(T), what);
    if (!raw.empty()) std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }

  std::string_view String(std::string_view what) {
    const auto length = Number<uint64_t>(what);
    const auto raw = Take(length, what);
    return {reinterpret_cast<const char*>(raw.data()), raw.size()};
  }

 private:
  std::string_view file_;
  std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
  absl::Status status_;
};

}  // namespace nibble
