// See safetensors.h.
#include "engine/loader/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/loader/json.h"
#include "engine/loader/value.h"
#include "engine/status.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct Dtype {
  std::string_view name;
  int64_t bits;
};
constexpr std::array<Dtype, 22> kDtypes = {{
    {"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"U16", 16},        {"I16", 16},
    {"U32", 32},    {"I32", 32},    {"U64", 64},        {"I64", 64},        {"F16", 16},
    {"BF16", 16},   {"F32", 32},    {"F64", 64},        {"C64", 64},        {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F4", 4},
    {"F6_E2M3", 6}, {"F6_E3M2", 6},
}};

struct Extent {
  int64_t begin = 0;
  int64_t end = 0;
};

struct Entry {
  SafetensorsEntry tensor;
  Extent extent;
};

// Bytes of the shape's values; nothing when they overflow or do not fill whole bytes.
std::optional<int64_t> SizeInBytes(std::string_view dtype, const std::vector<int64_t>& shape) {
  const auto known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                  [&](const Dtype& candidate) { return candidate.name == dtype; });
  if (known == kDtypes.end()) return std::nullopt;
  int64_t bits = known->bits;
  for (const int64_t dimension : shape) {
    if (__builtin_mul_overflow(bits, dimension, &bits)) return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

// An array of integers >= 0, or nothing.
std::optional<std::vector<int64_t>> Naturals(const Value* value) {
  if (value == nullptr || value->AsArray() == nullptr) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const Value& item : *value->AsArray()) {
    const int64_t* number = item.AsInt();
    if (number == nullptr || *number < 0) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

absl::Status CheckMetadata(std::string_view file, const Value& metadata) {
  const Value::Object* members = metadata.AsObject();
  if (members == nullptr) return CorruptFile(file, "__metadata__ is not an object");
  for (const Value::Member& member : *members) {
    if (member.value.AsText() == nullptr) {
      return CorruptFile(file, absl::StrCat("__metadata__ ", Quoted(member.key), " is ",
                                            member.value.Describe(), ", wanted a string"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Entry> ParseEntry(const std::string& place, const Value::Member& member) {
  if (member.value.AsObject() == nullptr) return CorruptFile(place, "is not an object");
  if (member.value.AsObject()->size() != 3) {
    return CorruptFile(place, "has fields other than dtype, shape and data_offsets");
  }
  const Value* dtype = member.value.Find("dtype");
  if (dtype == nullptr || dtype->AsText() == nullptr) {
    return CorruptFile(place, "has no dtype");
  }
  std::optional<std::vector<int64_t>> shape = Naturals(member.value.Find("shape"));
  if (!shape.has_value()) return CorruptFile(place, "has no shape of integers >= 0");
  const std::optional<std::vector<int64_t>> offsets = Naturals(member.value.Find("data_offsets"));
  if (!offsets.has_value() || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1]) {
    return CorruptFile(place, "has no data_offsets [begin, end] with 0 <= begin <= end");
  }
  const std::optional<int64_t> size = SizeInBytes(*dtype->AsText(), *shape);
  if (!size.has_value()) {
    return CorruptFile(place,
                       absl::StrCat("has no size in whole bytes: dtype ", Quoted(*dtype->AsText()),
                                    ", shape ", ShapeText(*shape)));
  }
  const Extent extent{(*offsets)[0], (*offsets)[1]};
  if (extent.end - extent.begin != *size) {
    return CorruptFile(
        place, absl::StrCat("has ", extent.end - extent.begin, " bytes, dtype ", *dtype->AsText(),
                            " and shape ", ShapeText(*shape), " want ", *size));
  }
  return Entry{{member.key, *dtype->AsText(), *std::move(shape), {}}, extent};
}

absl::StatusOr<std::vector<Entry>> ParseEntries(std::string_view file, const Value& header) {
  std::vector<Entry> entries;
  for (const Value::Member& member : *header.AsObject()) {
    if (member.key == "__metadata__") {
      if (absl::Status status = CheckMetadata(file, member.value); !status.ok()) return status;
      continue;
    }
    absl::StatusOr<Entry> entry =
        ParseEntry(absl::StrCat(Str(file), ": tensor ", Quoted(member.key)), member);
    if (!entry.ok()) return entry.status();
    entries.push_back(*std::move(entry));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.extent.begin, a.extent.end) < std::pair(b.extent.begin, b.extent.end);
  });
  return entries;
}

// Entries, in order, fill `data` exactly; points each at its bytes.
absl::Status Place(std::string_view file, std::span<const uint8_t> data,
                   std::vector<Entry>& entries) {
  int64_t position = 0;
  const int64_t size = static_cast<int64_t>(data.size());
  for (Entry& entry : entries) {
    if (entry.extent.begin != position) {
      return CorruptFile(
          file, absl::StrCat("tensor ", Quoted(entry.tensor.name), " begins at ",
                             entry.extent.begin, ", the tensor before it ends at ", position));
    }
    if (entry.extent.end > size) {
      return CorruptFile(file, absl::StrCat("tensor ", Quoted(entry.tensor.name), " ends at ",
                                            entry.extent.end, ", the data at ", size));
    }
    position = entry.extent.end;
    entry.tensor.data = data.subspan(static_cast<size_t>(entry.extent.begin),
                                     static_cast<size_t>(position - entry.extent.begin));
  }
  if (position == size) return absl::OkStatus();
  return CorruptFile(file, absl::StrCat("has ", size, " bytes of data, its tensors ", position));
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(std::string_view file,
                                                               std::span<const uint8_t> bytes) {
  if (bytes.size() < kLengthBytes) {
    return CorruptFile(file, absl::StrCat("has ", bytes.size(), " bytes, wanted at least 8"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - kLengthBytes) {
    return CorruptFile(file,
                       absl::StrCat("says that its header has ", header_bytes, " bytes, but has ",
                                    bytes.size() - kLengthBytes, " after the length (and at most ",
                                    kMaxHeaderBytes, " are allowed)"));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                              header_bytes);
  if (!text.starts_with('{')) return CorruptFile(file, "its header does not begin with {");
  const absl::StatusOr<Value> header = ParseJsonObject(file, text);
  if (!header.ok()) return header.status();
  absl::StatusOr<std::vector<Entry>> entries = ParseEntries(file, *header);
  if (!entries.ok()) return entries.status();
  const absl::Status placed = Place(file, bytes.subspan(kLengthBytes + header_bytes), *entries);
  if (!placed.ok()) return placed;
  std::vector<SafetensorsEntry> tensors;
  for (Entry& entry : *entries) tensors.push_back(std::move(entry.tensor));
  return tensors;
}

}  // namespace nibble
