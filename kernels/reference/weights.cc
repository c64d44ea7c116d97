// Copies a matrix as it stands into the caller's memory and back.
#include "kernels/reference/weights.h"

#include <algorithm>
#include <cstring>

#include "kernels/half.h"

namespace nibble::reference {
namespace {

// A matrix of the spec's shape with every array sized and still zero.
FourBitMatrix Shaped(const WeightSpec& spec) {
  FourBitMatrix matrix;
  matrix.format = spec.format;
  matrix.codebook = CodebookOf(spec.format);
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

bool HasShapeOf(const FourBitMatrix& matrix, const WeightSpec& spec) {
  const FourBitMatrix wanted = Shaped(spec);
  return matrix.format == spec.format && matrix.n == spec.n && matrix.k == spec.k &&
         matrix.group_size == spec.group_size && matrix.double_quant == spec.double_quant &&
         matrix.codes.size() == wanted.codes.size() &&
         matrix.absmax.size() == wanted.absmax.size() &&
         matrix.absmax_codes.size() == wanted.absmax_codes.size() &&
         matrix.nested_absmax.size() == wanted.nested_absmax.size();
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

// Tables of the matrix's own, one after the other.
template <typename F>
void ForEachTable(FourBitMatrix& matrix, void* tables, F f) {
  float* table = static_cast<float*>(tables);
  f(matrix.codebook, table);
  if (matrix.double_quant) f(matrix.nested_map, table + matrix.codebook.size());
}

std::vector<float> UnpackFourBit(const Weight& weight) {
  FourBitMatrix matrix = Shaped(weight.spec);
  CopyIn(weight.codes, &matrix.codes);
  if (matrix.double_quant) {
    CopyIn(weight.scales, &matrix.absmax_codes);
    CopyIn(weight.nested, &matrix.nested_absmax);
    const char* offset = static_cast<const char*>(weight.nested) + Bytes(matrix.nested_absmax);
    std::memcpy(&matrix.nested_offset, offset, sizeof(float));
  } else {
    CopyIn(weight.scales, &matrix.absmax);
  }
  if (weight.spec.own_tables) {
    ForEachTable(matrix, weight.tables, [](auto& own, const float* packed) {
      std::copy_n(packed, own.size(), own.begin());
    });
  }
  std::vector<float> values(static_cast<size_t>(matrix.NumValues()));
  DequantizeFourBit(matrix, 0, values);
  return values;
}

}  // namespace

PackedSize BytesOf(const WeightSpec& spec) {
  if (IsSixteenBit(spec.format)) return {.codes = spec.n * spec.k * 2};
  if (spec.format == WeightFormat::kInt8) return {.codes = spec.n * spec.k, .scales = spec.n * 4};
  const int64_t groups = (spec.n * spec.k + spec.group_size - 1) / spec.group_size;
  PackedSize size;
  size.codes = (spec.n * spec.k + 1) / 2;
  size.scales = spec.double_quant ? groups : groups * 4;
  size.nested = spec.double_quant ? (groups + kNestedGroup - 1) / kNestedGroup * 4 + 4 : 0;
  if (spec.own_tables) size.tables = 4 * (16 + (spec.double_quant ? 256 : 0));
  return size;
}

absl::Status Pack(const FourBitMatrix& matrix, Weight* weight) {
  if (!HasShapeOf(matrix, weight->spec)) {
    return absl::InvalidArgumentError("a 4-bit matrix of another shape or form than its weight");
  }
  if (NeedsOwnTables(matrix) && !weight->spec.own_tables) {
    return absl::InvalidArgumentError("a matrix with tables of its own, its weight without");
  }
  if (weight->spec.own_tables) {
    FourBitMatrix copy = matrix;
    ForEachTable(copy, weight->tables,
                 [](const auto& own, float* packed) { std::copy(own.begin(), own.end(), packed); });
  }
  CopyOut(matrix.codes, weight->codes);
  if (!matrix.double_quant) {
    CopyOut(matrix.absmax, weight->scales);
    return absl::OkStatus();
  }
  CopyOut(matrix.absmax_codes, weight->scales);
  CopyOut(matrix.nested_absmax, weight->nested);
  char* offset = static_cast<char*>(weight->nested) + Bytes(matrix.nested_absmax);
  std::memcpy(offset, &matrix.nested_offset, sizeof(float));
  return absl::OkStatus();
}

absl::Status Pack(const Int8Matrix& matrix, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  const Int8Matrix wanted = MakeInt8Matrix(spec.n, spec.k);
  if (spec.format != WeightFormat::kInt8 || matrix.n != spec.n || matrix.k != spec.k ||
      matrix.codes.size() != wanted.codes.size() || matrix.absmax.size() != wanted.absmax.size() ||
      spec.k > kMaxInt8Columns) {
    return absl::InvalidArgumentError("an INT8 matrix of another shape than its weight");
  }
  CopyOut(matrix.codes, weight->codes);
  CopyOut(matrix.absmax, weight->scales);
  return absl::OkStatus();
}

Int8Matrix UnpackInt8(const Weight& weight) {
  Int8Matrix matrix = MakeInt8Matrix(weight.spec.n, weight.spec.k);
  CopyIn(weight.codes, &matrix.codes);
  CopyIn(weight.scales, &matrix.absmax);
  return matrix;
}

absl::Status PackRows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (!IsSixteenBit(spec.format) || first_row < 0 || count < 0 || first_row > spec.n - count) {
    return absl::InvalidArgumentError("16-bit rows that are not their weight's");
  }
  std::memcpy(static_cast<uint16_t*>(weight->codes) + first_row * spec.k, values,
              static_cast<size_t>(count * spec.k) * sizeof(uint16_t));
  return absl::OkStatus();
}

std::vector<float> Unpack(const Weight& weight) {
  if (IsFourBit(weight.spec.format)) return UnpackFourBit(weight);
  std::vector<float> values(static_cast<size_t>(weight.spec.n * weight.spec.k));
  if (weight.spec.format == WeightFormat::kInt8) {
    DequantizeInt8(UnpackInt8(weight), 0, values);
    return values;
  }
  const DType dtype = weight.spec.format == WeightFormat::kBf16 ? DType::kBF16 : DType::kF16;
  const auto* halves = static_cast<const uint16_t*>(weight.codes);
  for (size_t i = 0; i < values.size(); ++i) values[i] = HalfToF32(dtype, halves[i]);
  return values;
}

}  // namespace nibble::reference
