// See bitsandbytes_values.h; also ReadFourBit and ReadInt8 of checkpoint.h.
#include "engine/loader/bitsandbytes_values.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "engine/check.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"

namespace nibble {
namespace {

constexpr float kReciprocal = 1.0f / 127;

float LoadFloat(const uint8_t* bytes, int64_t index) {
  float value = 0;
  std::memcpy(&value, bytes + index * 4, 4);
  return value;
}

std::vector<float> LoadFloats(const uint8_t* bytes, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  std::memcpy(values.data(), bytes, values.size() * 4);
  return values;
}

// As GroupScale: the product and the sum are rounded apart.
float ScaleOf(const QuantizedTensor& matrix, int64_t group) {
  if (!matrix.double_quant) return LoadFloat(matrix.absmax, group);
  const float difference = matrix.nested_map[matrix.absmax[group]] *
                           LoadFloat(matrix.nested_absmax, group / kNestedGroup);
  return difference + matrix.nested_offset;
}

// Flat elements [offset, offset + out.size()).
void FourBits(const TensorRef& tensor, int64_t offset, std::span<float> out) {
  const QuantizedTensor& matrix = *tensor.quantized;
  const int64_t end = offset + static_cast<int64_t>(out.size());
  float* next = out.data();
  for (int64_t i = offset; i < end;) {
    const int64_t group = i / matrix.group_size;
    const int64_t group_end = std::min(end, (group + 1) * matrix.group_size);
    const float scale = ScaleOf(matrix, group);
    std::array<float, 16> values = matrix.codebook;
    for (float& value : values) value *= scale;
    for (; i < group_end; ++i) {
      const uint8_t pair = tensor.data[i / 2];
      *next++ = values[i % 2 == 0 ? pair >> 4 : pair & 15];
    }
  }
}

void EightBits(const TensorRef& tensor, int64_t first, std::span<float> out) {
  const int64_t cols = tensor.cols();
  const int64_t count = static_cast<int64_t>(out.size()) / cols;
  float* next = out.data();
  for (int64_t row = first; row < first + count; ++row) {
    const float scale = LoadFloat(tensor.quantized->absmax, row);
    const uint8_t* codes = tensor.data + row * cols;
    for (int64_t i = 0; i < cols; ++i) {
      *next++ = static_cast<float>(static_cast<int8_t>(codes[i])) * scale * kReciprocal;
    }
  }
}

}  // namespace

void DequantizeRows(const TensorRef& tensor, int64_t first, std::span<float> out) {
  Check(tensor.quantized != nullptr && tensor.permuted_head_rows == 0,
        "DequantizeRows: a matrix of bitsandbytes'");
  if (tensor.type == TensorType::kINT8) return EightBits(tensor, first, out);
  FourBits(tensor, first * tensor.cols(), out);
}

FourBitMatrix ReadFourBit(const TensorRef& tensor) {
  Check(tensor.type == TensorType::kNF4 || tensor.type == TensorType::kFP4,
        "ReadFourBit: a matrix of 4 bits");
  const QuantizedTensor& source = *tensor.quantized;
  FourBitMatrix out;
  out.format = tensor.type == TensorType::kNF4 ? WeightFormat::kNf4 : WeightFormat::kFp4;
  out.n = tensor.rows();
  out.k = tensor.cols();
  out.group_size = source.group_size;
  out.double_quant = source.double_quant;
  out.codes.assign(tensor.data, tensor.data + tensor.bytes);
  out.codebook = source.codebook;
  const int64_t groups = out.NumGroups();
  if (!source.double_quant) {
    out.absmax = LoadFloats(source.absmax, groups);
    return out;
  }
  out.absmax_codes.assign(source.absmax, source.absmax + groups);
  out.nested_absmax = LoadFloats(source.nested_absmax, (groups - 1) / kNestedGroup + 1);
  out.nested_offset = source.nested_offset;
  out.nested_map = source.nested_map;
  return out;
}

Int8Matrix ReadInt8(const TensorRef& tensor) {
  Check(tensor.type == TensorType::kINT8, "ReadInt8: a matrix of 8 bits");
  Int8Matrix out = MakeInt8Matrix(tensor.rows(), tensor.cols());
  std::memcpy(out.codes.data(), tensor.data, out.codes.size());
  out.absmax = LoadFloats(tensor.quantized->absmax, tensor.rows());
  return out;
}

}  // namespace nibble
