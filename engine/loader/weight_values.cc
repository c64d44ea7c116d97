// See the header.
#include "engine/loader/weight_values.h"

#include <algorithm>
#include <bit>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status.h"

namespace nibble {
namespace {

uint32_t MagnitudeBits(float value) { return std::bit_cast<uint32_t>(value) & 0x7fffffffu; }

}  // namespace

uint32_t LargestMagnitudeBits(std::span<const float> values) {
  int32_t largest = 0;  // signed, so that it vectorizes on any ISA
  for (const float value : values) {
    largest = std::max(largest, static_cast<int32_t>(MagnitudeBits(value)));
  }
  return static_cast<uint32_t>(largest);
}

absl::Status NotFinite(const TensorRef& tensor, int64_t first_row, std::span<const float> values,
                       uint32_t limit) {
  const auto bad = std::find_if(values.begin(), values.end(),
                                [&](float value) { return MagnitudeBits(value) >= limit; });
  const int64_t flat = first_row * tensor.cols() + (bad - values.begin());
  const std::string index = tensor.shape.size() < 2 ? absl::StrCat("[", flat, "]")
                                                    : absl::StrCat("[", flat / tensor.cols(), ",",
                                                                   flat % tensor.cols(), "]");
  return Error(absl::StatusCode::kInvalidArgument, "WEIGHT_NOT_FINITE",
               absl::StrCat(tensor.file, ": tensor \"", tensor.name, "\" is ", *bad, " at ", index,
                            "; a weight must be finite"));
}

absl::Status QuantizeRows(const TensorRef& tensor, int64_t first, int64_t count,
                          std::span<float> scratch, FourBitQuantizer* quantizer) {
  const int64_t offset = first * tensor.cols();
  const std::span<float> values = scratch.first(static_cast<size_t>(count * tensor.cols()));
  const std::optional<Halves> halves = HalvesInFile(tensor, first, count);
  if (halves.has_value() && quantizer->Add(offset, halves->dtype, halves->values).ok()) {
    return absl::OkStatus();
  }
  ReadRows(tensor, first, count, values);
  if (!halves.has_value() && quantizer->Add(offset, values).ok()) return absl::OkStatus();
  return NotFinite(tensor, first, values, kInfinityBits);
}

absl::Status QuantizeRows(const TensorRef& tensor, int64_t first, int64_t count,
                          std::span<float> scratch, Int8Matrix* matrix) {
  const std::span<float> values = scratch.first(static_cast<size_t>(count * tensor.cols()));
  ReadRows(tensor, first, count, values);
  if (QuantizeInt8(first, values, matrix).ok()) return absl::OkStatus();
  return NotFinite(tensor, first, values, kRoundsToF16InfBits);
}

}  // namespace nibble
