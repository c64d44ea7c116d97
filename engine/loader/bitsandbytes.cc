// See bitsandbytes.h.
#include "engine/loader/bitsandbytes.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/loader/quant_state.h"
#include "engine/status.h"
#include "kernels/four_bit.h"

namespace nibble {
namespace {

constexpr std::string_view kStatePrefix = "quant_state.";
constexpr std::string_view kTypePrefix = "quant_state.bitsandbytes__";
constexpr std::array<std::string_view, 4> kFourBitKeys = {"absmax", "quant_map", "nested_absmax",
                                                          "nested_quant_map"};
// A state dict that was never packed keeps each field of the quant_state by itself.
constexpr std::array<std::string_view, 7> kUnpackedKeys = {
    "quant_type",       "blocksize",    "dtype",        "shape",
    "nested_blocksize", "nested_dtype", "nested_offset"};
constexpr std::array<std::string_view, 2> kEightBitKeys = {"SCB", "weight_format"};
constexpr std::array<const char*, 4> kWeightFormats = {"row", "col32", "col_turing", "col_ampere"};

template <size_t N>
bool IsIn(const std::array<std::string_view, N>& keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

absl::Status Corrupt(const StoredTensor& tensor, std::string_view what) {
  return CorruptFile(tensor.file,
                     absl::StrCat("tensor ", Quoted(tensor.entry.name), " ", Str(what)));
}

absl::Status Unsupported(const StoredTensor& tensor, std::string_view what) {
  return UnsupportedModel(tensor.file,
                          absl::StrCat("tensor ", Quoted(tensor.entry.name), " ", Str(what)));
}

int64_t Count(const SafetensorsEntry& entry) {
  int64_t count = 1;
  for (const int64_t dimension : entry.shape) count *= dimension;  // cannot overflow: it was read
  return count;
}

// The companion `key`, of exactly this type and this many values.
absl::StatusOr<const uint8_t*> Take(const StoredTensor& matrix, const Companions& companions,
                                    std::string_view key, std::string_view dtype, int64_t count) {
  const auto found = companions.find(key);
  if (found == companions.end()) {
    return Corrupt(matrix, absl::StrCat("has no ", Quoted(key), " beside it"));
  }
  const SafetensorsEntry& entry = found->second->entry;
  if (entry.dtype != dtype || Count(entry) != count) {
    return Corrupt(*found->second, absl::StrCat("is ", entry.dtype, " ", ShapeText(entry.shape),
                                                ", wanted ", Str(dtype), " [", count, "]"));
  }
  return entry.data.data();
}

// As Take, fp32 and every value finite.
absl::StatusOr<const uint8_t*> TakeFinite(const StoredTensor& matrix, const Companions& companions,
                                          std::string_view key, int64_t count) {
  const absl::StatusOr<const uint8_t*> values = Take(matrix, companions, key, "F32", count);
  if (!values.ok()) return values;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, *values + i * 4, 4);
    if ((bits & 0x7fffffffu) < 0x7f800000u) continue;
    const StoredTensor& tensor = *companions.find(key)->second;
    return NonFiniteWeight(tensor.file, absl::StrCat("tensor ", Quoted(tensor.entry.name), " is ",
                                                     std::bit_cast<float>(bits), " at [", i, "]"));
  }
  return values;
}

template <size_t N>
absl::Status ReadTable(const StoredTensor& matrix, const Companions& companions,
                       std::string_view key, std::array<float, N>& out) {
  const absl::StatusOr<const uint8_t*> table = TakeFinite(matrix, companions, key, N);
  if (!table.ok()) return table.status();
  std::memcpy(out.data(), *table, sizeof(out));
  return absl::OkStatus();
}

// Every key is one of 4 bits'; gives the quant_state's.
absl::StatusOr<std::string> FindStateKey(const StoredTensor& matrix, const Companions& companions) {
  std::string state;
  for (const auto& [key, tensor] : companions) {
    if (IsIn(kUnpackedKeys, key)) {
      return Unsupported(*tensor,
                         "is a quant_state's field by itself; supported: one "
                         "\"quant_state.bitsandbytes__nf4\" or \"…__fp4\", as "
                         "bitsandbytes' packed state dicts have");
    }
    if (IsIn(kFourBitKeys, key)) continue;
    if (!key.starts_with(kStatePrefix)) {
      return Corrupt(*tensor, absl::StrCat("is beside a 4-bit matrix, which has no ", Quoted(key)));
    }
    if (!state.empty()) {
      return Corrupt(matrix,
                     absl::StrCat("has two quant_states: ", Quoted(state), " and ", Quoted(key)));
    }
    state = key;
  }
  if (state.empty()) {
    return Corrupt(matrix, "has no \"quant_state.bitsandbytes__nf4\" or \"…__fp4\" beside it");
  }
  return state;
}

absl::StatusOr<QuantState> ReadState(const StoredTensor& matrix, const Companions& companions) {
  const absl::StatusOr<std::string> key = FindStateKey(matrix, companions);
  if (!key.ok()) return key.status();
  const StoredTensor& tensor = *companions.find(*key)->second;
  const std::string_view type =
      std::string_view{*key}.substr(std::min(kTypePrefix.size(), key->size()));
  if (!key->starts_with(kTypePrefix) || (type != "nf4" && type != "fp4")) {
    return Unsupported(tensor,
                       "is a quant_state that is not supported; supported: "
                       "\"quant_state.bitsandbytes__nf4\" and \"…__fp4\"");
  }
  if (tensor.entry.dtype != "U8") {
    return Corrupt(tensor,
                   absl::StrCat("has dtype ", tensor.entry.dtype, ", wanted U8 (JSON text)"));
  }
  const std::span<const uint8_t> text = tensor.entry.data;
  return ParseQuantState(absl::StrCat(tensor.file, ": tensor ", Quoted(tensor.entry.name)), type,
                         {reinterpret_cast<const char*>(text.data()), text.size()});
}

// The codes: one column of any storage type, of exactly the bytes that the shape needs.
absl::Status CheckCodes(const StoredTensor& matrix, const QuantState& state) {
  const SafetensorsEntry& entry = matrix.entry;
  constexpr std::array<std::string_view, 4> kStorage = {"U8", "F16", "BF16", "F32"};
  if (!IsIn(kStorage, entry.dtype)) {
    return Corrupt(
        matrix, absl::StrCat("has dtype ", entry.dtype, ", 4-bit codes are U8, F16, BF16 or F32"));
  }
  const int64_t wanted = (state.rows * state.cols + 1) / 2;
  const auto bytes = static_cast<int64_t>(entry.data.size());
  if (bytes != wanted) {
    return Corrupt(matrix,
                   absl::StrCat("has ", bytes, " bytes of codes, its quant_state's shape ",
                                ShapeText(std::array{state.rows, state.cols}), " wants ", wanted));
  }
  if (entry.shape.size() != 2 || entry.shape[1] != 1) {
    return Corrupt(
        matrix, absl::StrCat("has shape ", ShapeText(entry.shape), ", 4-bit codes are one column"));
  }
  return absl::OkStatus();
}

// The nested companions are there if and only if the quant_state has the nested fields.
absl::Status CheckNested(const StoredTensor& matrix, const Companions& companions, bool nested) {
  for (const char* key : {"nested_absmax", "nested_quant_map"}) {
    if (companions.contains(key) == nested) continue;
    return Corrupt(matrix, nested
                               ? absl::StrCat("has no ", Quoted(key),
                                              " beside it, its quant_state has nested fields")
                               : absl::StrCat("has ", Quoted(key),
                                              " beside it, its quant_state has no nested fields"));
  }
  return absl::OkStatus();
}

absl::Status ReadScales(const StoredTensor& matrix, const Companions& companions,
                        const QuantState& state, QuantizedTensor& out) {
  const int64_t groups = (state.rows * state.cols - 1) / state.group_size + 1;
  const absl::StatusOr<const uint8_t*> absmax =
      state.nested ? Take(matrix, companions, "absmax", "U8", groups)
                   : TakeFinite(matrix, companions, "absmax", groups);
  if (!absmax.ok()) return absmax.status();
  out.absmax = *absmax;
  if (!state.nested) return absl::OkStatus();
  const absl::StatusOr<const uint8_t*> nested =
      TakeFinite(matrix, companions, "nested_absmax", (groups - 1) / kNestedGroup + 1);
  if (!nested.ok()) return nested.status();
  out.nested_absmax = *nested;
  return ReadTable(matrix, companions, "nested_quant_map", out.nested_map);
}

TensorRef MakeRef(std::string name, const StoredTensor& matrix, TensorType type,
                  std::vector<int64_t> shape, QuantizedTensor quantized) {
  TensorRef tensor;
  tensor.name = std::move(name);
  tensor.shape = std::move(shape);
  tensor.type = type;
  tensor.data = matrix.entry.data.data();
  tensor.bytes = static_cast<int64_t>(matrix.entry.data.size());
  tensor.file = matrix.file;
  tensor.quantized = std::make_shared<const QuantizedTensor>(quantized);
  return tensor;
}

absl::StatusOr<TensorRef> ReadFourBits(std::string name, const StoredTensor& matrix,
                                       const Companions& companions) {
  const absl::StatusOr<QuantState> state = ReadState(matrix, companions);
  if (!state.ok()) return state.status();
  QuantizedTensor out;
  out.source_dtype = state->source_dtype;
  out.group_size = state->group_size;
  out.double_quant = state->nested;
  out.nested_offset = state->nested_offset;
  absl::Status read = CheckCodes(matrix, *state);
  if (read.ok()) read = CheckNested(matrix, companions, state->nested);
  if (read.ok()) read = ReadTable(matrix, companions, "quant_map", out.codebook);
  if (read.ok()) read = ReadScales(matrix, companions, *state, out);
  if (!read.ok()) return read;
  return MakeRef(std::move(name), matrix, state->type, {state->rows, state->cols}, out);
}

absl::Status CheckRowMajor(const StoredTensor& matrix, const Companions& companions) {
  if (!companions.contains("weight_format")) return absl::OkStatus();  // rows, as bitsandbytes
  const absl::StatusOr<const uint8_t*> format = Take(matrix, companions, "weight_format", "U8", 1);
  if (!format.ok()) return format.status();
  const size_t number = **format;
  if (number == 0) return absl::OkStatus();
  return Corrupt(
      *companions.find("weight_format")->second,
      absl::StrCat("is ", number, " (",
                   number < kWeightFormats.size() ? kWeightFormats[number] : "unknown",
                   "), wanted 0 (row): the others depend on a GPU and cannot be loaded"));
}

absl::StatusOr<TensorRef> ReadEightBits(std::string name, const StoredTensor& matrix,
                                        const Companions& companions) {
  for (const auto& [key, tensor] : companions) {
    if (IsIn(kEightBitKeys, key)) continue;
    return Corrupt(*tensor, absl::StrCat("is beside an 8-bit matrix, which has no ", Quoted(key)));
  }
  const SafetensorsEntry& entry = matrix.entry;
  if (entry.dtype != "I8" || entry.shape.size() != 2 || entry.data.empty()) {
    return Corrupt(matrix, absl::StrCat("is ", entry.dtype, " ", ShapeText(entry.shape),
                                        ", 8-bit codes are I8 [rows, columns]"));
  }
  QuantizedTensor out;
  absl::Status read = CheckRowMajor(matrix, companions);
  if (!read.ok()) return read;
  const absl::StatusOr<const uint8_t*> scales =
      TakeFinite(matrix, companions, "SCB", entry.shape[0]);
  if (!scales.ok()) return scales.status();
  out.absmax = *scales;
  return MakeRef(std::move(name), matrix, TensorType::kINT8, entry.shape, out);
}

}  // namespace

std::optional<CompanionName> SplitCompanionName(std::string_view name) {
  for (const std::string_view key : kEightBitKeys) {
    if (!name.ends_with(key) || !name.substr(0, name.size() - key.size()).ends_with('.')) continue;
    return CompanionName{absl::StrCat(Str(name.substr(0, name.size() - key.size())), "weight"),
                         Str(key), true};
  }
  constexpr std::string_view kWeight = ".weight.";
  const size_t at = name.find(kWeight);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view key = name.substr(at + kWeight.size());
  const bool known =
      IsIn(kFourBitKeys, key) || IsIn(kUnpackedKeys, key) || key.starts_with(kStatePrefix);
  return CompanionName{Str(name.substr(0, at + kWeight.size() - 1)), Str(key), known};
}

absl::StatusOr<TensorRef> ReadQuantizedMatrix(std::string name, const StoredTensor& matrix,
                                              const Companions& companions) {
  const bool eight_bits =
      std::any_of(companions.begin(), companions.end(),
                  [](const auto& companion) { return IsIn(kEightBitKeys, companion.first); });
  return eight_bits ? ReadEightBits(std::move(name), matrix, companions)
                    : ReadFourBits(std::move(name), matrix, companions);
}

}  // namespace nibble
