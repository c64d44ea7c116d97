// Copies a matrix as it stands into the caller's memory and back; checks nothing but the map.
#include "kernels/reference/weights.h"

#include <cstring>

#include "kernels/half.h"

namespace nibble::reference {
namespace {

// A matrix of the spec's shape with every array sized and still zero.
Nf4Matrix Shaped(const WeightSpec& spec) {
  Nf4Matrix matrix;
  matrix.n = spec.n;
  matrix.k = spec.k;
  matrix.group_size = spec.group_size;
  matrix.double_quant = spec.double_quant;
  const auto groups = static_cast<size_t>(matrix.NumGroups());
  matrix.codes.resize(static_cast<size_t>((matrix.NumValues() + 1) / 2));
  if (spec.double_quant) {
    matrix.absmax_codes.resize(groups);
    matrix.nested_absmax.resize((groups + kNestedGroup - 1) / kNestedGroup);
    matrix.nested_map = DynamicMap();
  } else {
    matrix.absmax.resize(groups);
  }
  return matrix;
}

template <typename T>
int64_t Bytes(const std::vector<T>& values) {
  return static_cast<int64_t>(values.size() * sizeof(T));
}

template <typename T>
void CopyOut(const std::vector<T>& from, void* to) {
  std::memcpy(to, from.data(), from.size() * sizeof(T));
}

template <typename T>
void CopyIn(const void* from, std::vector<T>* to) {
  std::memcpy(to->data(), from, to->size() * sizeof(T));
}

std::vector<float> UnpackNf4(const Weight& weight) {
  Nf4Matrix matrix = Shaped(weight.spec);
  CopyIn(weight.codes, &matrix.codes);
  if (matrix.double_quant) {
    CopyIn(weight.scales, &matrix.absmax_codes);
    CopyIn(weight.nested, &matrix.nested_absmax);
    const char* offset = static_cast<const char*>(weight.nested) + Bytes(matrix.nested_absmax);
    std::memcpy(&matrix.nested_offset, offset, sizeof(float));
  } else {
    CopyIn(weight.scales, &matrix.absmax);
  }
  std::vector<float> values(static_cast<size_t>(matrix.NumValues()));
  DequantizeNf4(matrix, 0, values);
  return values;
}

}  // namespace

PackedSize BytesOf(const WeightSpec& spec) {
  if (spec.format != WeightFormat::kNf4) return {.codes = spec.n * spec.k * 2};
  const int64_t groups = (spec.n * spec.k + spec.group_size - 1) / spec.group_size;
  PackedSize size;
  size.codes = (spec.n * spec.k + 1) / 2;
  size.scales = spec.double_quant ? groups : groups * 4;
  size.nested = spec.double_quant ? (groups + kNestedGroup - 1) / kNestedGroup * 4 + 4 : 0;
  return size;
}

absl::Status Pack(const Nf4Matrix& matrix, Weight* weight) {
  CopyOut(matrix.codes, weight->codes);
  if (!matrix.double_quant) {
    CopyOut(matrix.absmax, weight->scales);
    return absl::OkStatus();
  }
  if (matrix.nested_map != DynamicMap()) {
    return absl::UnimplementedError("NF4 scales were nested with a map other than DynamicMap()");
  }
  CopyOut(matrix.absmax_codes, weight->scales);
  CopyOut(matrix.nested_absmax, weight->nested);
  char* offset = static_cast<char*>(weight->nested) + Bytes(matrix.nested_absmax);
  std::memcpy(offset, &matrix.nested_offset, sizeof(float));
  return absl::OkStatus();
}

void PackRows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight) {
  const int64_t k = weight->spec.k;
  std::memcpy(static_cast<uint16_t*>(weight->codes) + first_row * k, values,
              static_cast<size_t>(count * k) * sizeof(uint16_t));
}

std::vector<float> Unpack(const Weight& weight) {
  if (weight.spec.format == WeightFormat::kNf4) return UnpackNf4(weight);
  std::vector<float> values(static_cast<size_t>(weight.spec.n * weight.spec.k));
  const uint16_t* halves = RowOf(weight, 0);
  for (size_t i = 0; i < values.size(); ++i) values[i] = HalfToF32(DTypeOf(weight), halves[i]);
  return values;
}

const uint16_t* RowOf(const Weight& weight, int64_t row) {
  return static_cast<const uint16_t*>(weight.codes) + row * weight.spec.k;
}

DType DTypeOf(const Weight& weight) {
  return weight.spec.format == WeightFormat::kBf16 ? DType::kBF16 : DType::kF16;
}

}  // namespace nibble::reference
