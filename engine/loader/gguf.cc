// See gguf.h.
#include "engine/loader/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/loader/byte_reader.h"
#include "engine/loader/errors.h"
#include "engine/loader/gguf_fields.h"
#include "engine/status.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMaxTensorNameBytes = 64;
constexpr uint32_t kMaxRank = 4;
constexpr int64_t kMaxAlignment = 1 << 20;
// The shortest tensor entry, to weigh counts against the file.
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

struct TypeId {
  uint32_t id;
  TensorType type;
};
constexpr std::array<TypeId, 11> kTensorTypes = {{{0, TensorType::kF32},
                                                  {1, TensorType::kF16},
                                                  {30, TensorType::kBF16},
                                                  {2, TensorType::kQ4_0},
                                                  {3, TensorType::kQ4_1},
                                                  {6, TensorType::kQ5_0},
                                                  {7, TensorType::kQ5_1},
                                                  {8, TensorType::kQ8_0},
                                                  {12, TensorType::kQ4_K},
                                                  {13, TensorType::kQ5_K},
                                                  {14, TensorType::kQ6_K}}};

struct TypeName {
  uint32_t id;
  const char* name;
};
// What ggml has and we do not, for the refusal.
constexpr std::array<TypeName, 23> kOtherTensorTypes = {
    {{9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
     {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
     {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
     {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"}, {41, "Q1_0"}}};

absl::StatusOr<TensorType> FindType(std::string_view place, uint32_t id) {
  for (const TypeId& known : kTensorTypes) {
    if (known.id == id) return known.type;
  }
  for (const TypeName& other : kOtherTensorTypes) {
    if (other.id != id) continue;
    return UnsupportedModel(place, absl::StrCat("has type ", other.name,
                                                "; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, "
                                                "Q5_1, Q8_0, Q4_K, Q5_K, Q6_K"));
  }
  return UnsupportedModel(place, absl::StrCat("has type ", id, ", which is unknown here"));
}

// The tensor's size from its shape, checked: whole blocks in a row, no overflow.
absl::StatusOr<int64_t> SizeInBytes(std::string_view place, const TensorRef& tensor) {
  int64_t values = 1;
  for (const int64_t dimension : tensor.shape) {
    if (dimension <= 0 || __builtin_mul_overflow(values, dimension, &values)) {
      return CorruptFile(place, absl::StrCat("has shape ", ShapeText(tensor.shape)));
    }
  }
  const int64_t row = tensor.shape.back();
  if (row % BlockValues(tensor.type) != 0) {
    return CorruptFile(place, absl::StrCat("has rows of ", row, " values, blocks of ",
                                           Name(tensor.type), " have ", BlockValues(tensor.type)));
  }
  int64_t bytes = values / BlockValues(tensor.type);
  if (__builtin_mul_overflow(bytes, BlockBytes(tensor.type), &bytes)) {
    return CorruptFile(place, absl::StrCat("has shape ", ShapeText(tensor.shape)));
  }
  return bytes;
}

struct PlacedTensor {
  TensorRef tensor;
  uint64_t offset = 0;
};

PlacedTensor ReadTensorEntry(std::string_view file, ByteReader& reader) {
  PlacedTensor out;
  const std::string_view name = reader.String("a tensor's name");
  if (name.empty() || name.size() > kMaxTensorNameBytes) {
    reader.Corrupt(absl::StrCat("has a tensor's name of ", name.size(), " bytes"));
  }
  const auto rank = reader.Number<uint32_t>("a tensor's rank");
  if (rank < 1 || rank > kMaxRank) {
    reader.Corrupt(absl::StrCat("tensor ", Quoted(name), " has ", rank, " dimensions"));
  }
  if (!reader.ok()) return out;
  out.tensor.name = std::string(name);
  out.tensor.file = std::string(file);
  for (uint32_t i = 0; i < rank; ++i) {
    out.tensor.shape.push_back(static_cast<int64_t>(reader.Number<uint64_t>("a tensor's shape")));
  }
  std::reverse(out.tensor.shape.begin(), out.tensor.shape.end());
  const auto id = reader.Number<uint32_t>("a tensor's type");
  out.offset = reader.Number<uint64_t>("a tensor's offset");
  if (!reader.ok()) return out;
  const std::string place = absl::StrCat(Str(file), ": tensor ", Quoted(name));
  const absl::StatusOr<TensorType> type = FindType(place, id);
  if (type.ok()) out.tensor.type = *type;
  const absl::StatusOr<int64_t> bytes =
      type.ok() ? SizeInBytes(place, out.tensor) : absl::StatusOr<int64_t>(type.status());
  if (bytes.ok()) out.tensor.bytes = *bytes;
  reader.Fail(bytes.status());
  return out;
}

std::vector<PlacedTensor> ReadTensors(std::string_view file, uint64_t count, ByteReader& reader) {
  if (!reader.Holds(count, kMinTensorBytes)) {
    reader.Corrupt(absl::StrCat("claims ", count, " tensors, but only ", reader.remaining(),
                                " bytes are left"));
  }
  std::vector<PlacedTensor> tensors;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    tensors.push_back(ReadTensorEntry(file, reader));
  }
  return tensors;
}

absl::StatusOr<uint64_t> Alignment(const GgufFile& file) {
  Fields fields(file.name, file.fields);
  const int64_t alignment = fields.IntOr("general.alignment", 32, 1, kMaxAlignment);
  if (!fields.status().ok()) return fields.status();
  if (std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return static_cast<uint64_t>(alignment);
  }
  return CorruptFile(file.name,
                     absl::StrCat("general.alignment is ", alignment, ", wanted a power of two"));
}

// Points every tensor at its bytes of `data`: aligned, inside, none over another.
absl::Status Place(std::string_view file, std::span<const uint8_t> data, uint64_t alignment,
                   std::vector<PlacedTensor>& tensors) {
  std::vector<std::pair<uint64_t, uint64_t>> extents;
  for (PlacedTensor& placed : tensors) {
    const auto size = static_cast<uint64_t>(placed.tensor.bytes);
    if (placed.offset % alignment != 0 || placed.offset > data.size() ||
        size > data.size() - placed.offset) {
      return CorruptFile(file, absl::StrCat("tensor ", Quoted(placed.tensor.name), " has ", size,
                                            " bytes at offset ", placed.offset, " of ", data.size(),
                                            " bytes of data, aligned to ", alignment));
    }
    placed.tensor.data = data.data() + placed.offset;
    extents.emplace_back(placed.offset, placed.offset + size);
  }
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].first < extents[i - 1].second) {
      return CorruptFile(file, absl::StrCat("two tensors overlap at offset ", extents[i].first));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckVersion(std::string_view file, uint32_t version) {
  if (version == 2 || version == 3) return absl::OkStatus();
  if ((version & 0xffff) == 0 && version != 0) {
    return UnsupportedModel(file, "is big-endian GGUF; supported: little-endian");
  }
  return UnsupportedModel(file, absl::StrCat("is GGUF version ", version, "; supported: 2, 3"));
}

}  // namespace

bool HasGgufMagic(std::span<const uint8_t> bytes) {
  return bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
}

absl::StatusOr<GgufFile> ParseGguf(std::string_view file, std::span<const uint8_t> bytes) {
  ByteReader reader(file, bytes);
  const auto magic = reader.Take(4, "the header");
  if (reader.ok() && !HasGgufMagic(magic)) {
    return NotAModel(file, "does not begin with GGUF");
  }
  const auto version = reader.Number<uint32_t>("the header");
  if (reader.ok()) reader.Fail(CheckVersion(file, version));
  const auto num_tensors = reader.Number<uint64_t>("the header");
  const auto num_fields = reader.Number<uint64_t>("the header");
  GgufFile out;
  out.name = Str(file);
  if (reader.ok()) ReadGgufFields(num_fields, reader, out);
  std::vector<PlacedTensor> tensors;
  if (reader.ok()) tensors = ReadTensors(file, num_tensors, reader);
  if (!reader.ok()) return reader.status();

  const absl::StatusOr<uint64_t> alignment = Alignment(out);
  if (!alignment.ok()) return alignment.status();
  const uint64_t data_begin = (reader.position() + *alignment - 1) / *alignment * *alignment;
  const std::span<const uint8_t> data =
      data_begin < bytes.size() ? bytes.subspan(data_begin) : std::span<const uint8_t>();
  if (absl::Status placed = Place(file, data, *alignment, tensors); !placed.ok()) return placed;
  for (PlacedTensor& placed : tensors) out.tensors.push_back(std::move(placed.tensor));
  return out;
}

}  // namespace nibble
