// The metadata of a GGUF file: the grammar's `field` and `array`.
#include "engine/loader/gguf_fields.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"

namespace nibble {
namespace {

constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMinFieldBytes =
    8 + 1 + 4 + 1;  // the shortest, to weigh counts against the file

enum FieldType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kFloat64
};
// Bytes of one value; 0: of varying length.
constexpr std::array<uint64_t, 13> kFieldBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

template <typename T>
Value IntValue(ByteReader& reader) {
  return Value{int64_t{reader.Number<T>("a number")}};
}

Value ReadBool(ByteReader& reader) {
  const auto byte = reader.Number<uint8_t>("a bool");
  if (byte > 1) reader.Corrupt(absl::StrCat("has the bool ", static_cast<int>(byte)));
  return Value(byte == 1);
}

Value ReadU64(ByteReader& reader) {
  const auto number = reader.Number<uint64_t>("a number");
  const auto narrow = static_cast<int64_t>(number);
  return narrow >= 0 ? Value(narrow) : Value(static_cast<double>(number));
}

Value ReadText(ByteReader& reader) {
  const std::string_view text = reader.String("a string");
  if (!simdjson::validate_utf8(text)) reader.Corrupt("has a string that is not UTF-8");
  return Value(std::string(text));
}

Value ReadScalar(ByteReader& reader, uint32_t type) {
  switch (type) {
    case kU8:
      return IntValue<uint8_t>(reader);
    case kI8:
      return IntValue<int8_t>(reader);
    case kU16:
      return IntValue<uint16_t>(reader);
    case kI16:
      return IntValue<int16_t>(reader);
    case kU32:
      return IntValue<uint32_t>(reader);
    case kI32:
      return IntValue<int32_t>(reader);
    case kI64:
      return IntValue<int64_t>(reader);
    case kU64:
      return ReadU64(reader);
    case kFloat32:
      return Value(static_cast<double>(reader.Number<float>("a number")));
    case kFloat64:
      return Value(reader.Number<double>("a number"));
    case kBool:
      return ReadBool(reader);
    case kString:
      return ReadText(reader);
    default:
      reader.Corrupt(absl::StrCat("has the unknown field type ", type));
      return Value();
  }
}

GgufArray ReadArray(std::string_view file, ByteReader& reader) {
  GgufArray array;
  array.element_type = reader.Number<uint32_t>("an array");
  array.count = reader.Number<uint64_t>("an array");
  if (array.element_type == kArray) {
    reader.Fail(UnsupportedModel(file, "has an array of arrays"));
  } else if (array.element_type >= kFieldBytes.size()) {
    reader.Corrupt(absl::StrCat("has the unknown element type ", array.element_type));
  }
  if (!reader.ok()) return {};
  const uint64_t fixed = kFieldBytes[array.element_type];
  if (!reader.Holds(array.count, fixed > 0 ? fixed : sizeof(uint64_t))) {
    reader.Corrupt(absl::StrCat("has an array of ", array.count, " elements, but only ",
                                reader.remaining(), " bytes are left"));
    return {};
  }
  if (fixed > 0) {
    array.bytes = reader.Take(array.count * fixed, "an array");
    return array;
  }
  ByteReader strings = reader;  // walks ahead to find the end
  for (uint64_t i = 0; i < array.count && strings.ok(); ++i) strings.String("an array's string");
  if (!strings.ok()) {
    reader.Fail(strings.status());
    return {};
  }
  array.bytes = reader.Take(strings.position() - reader.position(), "an array");
  return array;
}

}  // namespace

void ReadGgufFields(uint64_t count, ByteReader& reader, GgufFile& out) {
  if (!reader.Holds(count, kMinFieldBytes)) {
    reader.Corrupt(absl::StrCat("claims ", count, " metadata fields, but only ", reader.remaining(),
                                " bytes are left"));
  }
  Value::Object fields;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    const std::string_view key = reader.String("a field's name");
    if (key.empty() || key.size() > kMaxKeyBytes) {
      reader.Corrupt(absl::StrCat("has a field's name of ", key.size(), " bytes"));
    }
    const auto type = reader.Number<uint32_t>("a field's type");
    if (!reader.ok()) return;
    const bool is_array = type == kArray;
    if (is_array) out.arrays.try_emplace(std::string(key), ReadArray(out.name, reader));
    fields.push_back(
        {std::string(key), is_array ? Value(Value::Array()) : ReadScalar(reader, type)});
  }
  std::vector<std::string_view> keys;
  for (const Value::Member& field : fields) keys.push_back(field.key);
  std::sort(keys.begin(), keys.end());
  const auto twin = std::adjacent_find(keys.begin(), keys.end());
  if (twin != keys.end()) reader.Corrupt(absl::StrCat("has the field ", Quoted(*twin), " twice"));
  out.fields = Value(std::move(fields));
}

absl::StatusOr<std::vector<std::string>> GgufFile::Strings(std::string_view key) const {
  const auto found = arrays.find(key);
  if (found == arrays.end()) return std::vector<std::string>();
  const GgufArray& array = found->second;
  if (array.element_type != kString) {
    return CorruptFile(name, absl::StrCat(Quoted(key), " is not an array of strings"));
  }
  std::vector<std::string> out;
  out.reserve(array.count);
  ByteReader reader(name, array.bytes);
  for (uint64_t i = 0; i < array.count; ++i) out.emplace_back(reader.String("an array's string"));
  return out;
}

absl::StatusOr<std::vector<int32_t>> GgufFile::Ints(std::string_view key) const {
  const auto found = arrays.find(key);
  if (found == arrays.end()) return std::vector<int32_t>();
  const GgufArray& array = found->second;
  if (array.element_type != kI32 && array.element_type != kU32) {
    return CorruptFile(name, absl::StrCat(Quoted(key), " is not an array of 32-bit integers"));
  }
  std::vector<int32_t> out(array.count);
  if (array.count > 0) std::memcpy(out.data(), array.bytes.data(), array.bytes.size());
  return out;
}

}  // namespace nibble
