// Small matrices as bitsandbytes stores them, in parts that a test can edit before they are
// written.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/four_bit.h"
#include "tests/engine/loader/tiny_models.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"

namespace nibble::testing {

struct Part {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using Parts = std::map<std::string, Part>;  // by the tensor's name

inline std::string SafetensorsOf(const Parts& parts) {
  SafetensorsWriter writer;
  for (const auto& [name, part] : parts) writer.Add(name, part.dtype, part.shape, part.bytes);
  return writer.File();
}

inline Part TextPart(const std::string& text) {
  return {"U8", {static_cast<int64_t>(text.size())}, text};
}

template <typename T>
Part VectorPart(const char* dtype, const std::vector<T>& values) {
  return {dtype, {static_cast<int64_t>(values.size())}, RawBytes(values)};
}

// A quant_state as bitsandbytes writes it. The offset: 0.0625, exact in any spelling.
inline std::string StateText(const FourBitMatrix& matrix) {
  std::string text = std::string("{\"quant_type\": \"") + Name(matrix.format) +
                     "\", \"blocksize\": " + std::to_string(matrix.group_size) +
                     ", \"dtype\": \"bfloat16\", \"shape\": [" + std::to_string(matrix.n) + ", " +
                     std::to_string(matrix.k) + "]";
  if (matrix.double_quant) {
    text += ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 0.0625";
  }
  return text + "}";
}

// Some values of every size and sign.
inline FourBitMatrix SmallFourBit(WeightFormat format, int64_t n, int64_t k, int32_t group_size,
                                  bool double_quant) {
  FourBitMatrix matrix;
  matrix.format = format;
  matrix.n = n;
  matrix.k = k;
  matrix.group_size = group_size;
  matrix.codebook = CodebookOf(format);
  for (int64_t i = 0; i < (n * k + 1) / 2; ++i) {
    matrix.codes.push_back(static_cast<uint8_t>(i * 37 + 11));
  }
  for (int64_t i = 0; i < matrix.NumGroups(); ++i) {
    matrix.absmax.push_back(0.5f + 0.3f * static_cast<float>(i % 7));
  }
  if (double_quant) NestScales(0.0625f, &matrix);
  return matrix;
}

// `name` ends in ".weight".
inline Parts FourBitParts(const std::string& name, const FourBitMatrix& matrix) {
  Parts parts;
  const std::vector<float> codebook(matrix.codebook.begin(), matrix.codebook.end());
  parts[name] = VectorPart("U8", matrix.codes);
  parts[name].shape.push_back(1);
  parts[name + ".quant_map"] = VectorPart("F32", codebook);
  parts[name + ".quant_state.bitsandbytes__" + Name(matrix.format)] = TextPart(StateText(matrix));
  if (!matrix.double_quant) {
    parts[name + ".absmax"] = VectorPart("F32", matrix.absmax);
    return parts;
  }
  const std::vector<float> map(matrix.nested_map.begin(), matrix.nested_map.end());
  parts[name + ".absmax"] = VectorPart("U8", matrix.absmax_codes);
  parts[name + ".nested_absmax"] = VectorPart("F32", matrix.nested_absmax);
  parts[name + ".nested_quant_map"] = VectorPart("F32", map);
  return parts;
}

// Codes -60, -59 …; scales 1, 2, 3 …
inline Parts Int8Parts(const std::string& name, int64_t n, int64_t k) {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  for (int64_t i = 0; i < n * k; ++i) codes.push_back(static_cast<int8_t>(i % 120 - 60));
  for (int64_t i = 0; i < n; ++i) scales.push_back(static_cast<float>(i + 1));
  const std::string module = name.substr(0, name.size() - std::string("weight").size());
  Parts parts;
  parts[name] = {"I8", {n, k}, RawBytes(codes)};
  parts[module + "SCB"] = VectorPart("F32", scales);
  parts[module + "weight_format"] = {"U8", {}, std::string(1, '\0')};
  return parts;
}

// The tiny models of tiny_models.h with some of their matrices (and perhaps one that must not be)
// in 4 bits.
inline Parts TinyParts(const std::vector<TinyTensor>& tensors,
                       const std::set<std::string>& in_four_bits) {
  Parts parts;
  for (const TinyTensor& tensor : tensors) {
    if (in_four_bits.contains(tensor.name)) {
      const int64_t cols = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
      parts.merge(FourBitParts(tensor.name,
                               SmallFourBit(WeightFormat::kNf4, tensor.shape[0], cols, 32, true)));
    } else {
      parts[tensor.name] = {"F32", tensor.shape, Ramp(tensor.shape)};
    }
  }
  return parts;
}

}  // namespace nibble::testing
