// See the header.
#include "engine/loader/tensor.h"

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/loader/bitsandbytes_values.h"
#include "engine/loader/dequantize.h"
#include "engine/status.h"

namespace nibble {
namespace {

struct TypeTraits {
  const char* name;
  int64_t block_values;
  int64_t block_bytes;
};

// By TensorType.
constexpr TypeTraits kTraits[] = {
    {"F32", 1, 4},      {"F16", 1, 2},    {"BF16", 1, 2},   {"Q4_0", 32, 18},   {"Q4_1", 32, 20},
    {"Q5_0", 32, 22},   {"Q5_1", 32, 24}, {"Q8_0", 32, 34}, {"Q4_K", 256, 144}, {"Q5_K", 256, 176},
    {"Q6_K", 256, 210}, {"NF4", 2, 1},    {"FP4", 2, 1},    {"INT8", 1, 1},
};

const TypeTraits& Traits(TensorType type) { return kTraits[static_cast<int>(type)]; }

// The row of the file that holds a logical row; see TensorRef::permuted_head_rows.
int64_t StoredRow(const TensorRef& tensor, int64_t row) {
  const int64_t head_rows = tensor.permuted_head_rows;
  if (head_rows == 0) return row;
  const int64_t in_head = row % head_rows;
  const int64_t half = head_rows / 2;
  const int64_t stored = in_head < half ? 2 * in_head : 2 * (in_head - half) + 1;
  return row - in_head + stored;
}

}  // namespace

const char* Name(TensorType type) { return Traits(type).name; }
int64_t BlockValues(TensorType type) { return Traits(type).block_values; }
int64_t BlockBytes(TensorType type) { return Traits(type).block_bytes; }

WeightFormat FormatOf(TensorType type) {
  return type == TensorType::kNF4   ? WeightFormat::kNf4
         : type == TensorType::kFP4 ? WeightFormat::kFp4
                                    : WeightFormat::kInt8;
}

bool IsPartOf(std::string_view module, std::string_view name) {
  const auto dotted = [](std::string_view text) { return absl::StrCat(".", Str(text), "."); };
  return dotted(name).find(dotted(module)) != std::string::npos;
}

int64_t TensorRef::cols() const {
  int64_t product = 1;
  for (size_t i = 1; i < shape.size(); ++i) product *= shape[i];
  return product;
}

std::optional<Halves> HalvesInFile(const TensorRef& tensor, int64_t first, int64_t count) {
  Check(first >= 0 && count >= 0 && first <= tensor.rows() - count, "HalvesInFile: rows in range");
  const bool sixteen = tensor.type == TensorType::kF16 || tensor.type == TensorType::kBF16;
  const uint8_t* data = tensor.data + first * tensor.cols() * 2;
  if (!sixteen || tensor.permuted_head_rows != 0 || reinterpret_cast<uintptr_t>(data) % 2 != 0) {
    return std::nullopt;
  }
  return Halves{
      tensor.type == TensorType::kF16 ? DType::kF16 : DType::kBF16,
      {reinterpret_cast<const uint16_t*>(data), static_cast<size_t>(count * tensor.cols())}};
}

void ReadRows(const TensorRef& tensor, int64_t first, int64_t count, std::span<float> out) {
  const int64_t cols = tensor.cols();
  Check(first >= 0 && count >= 0 && first <= tensor.rows() - count, "ReadRows: rows in range");
  Check(static_cast<int64_t>(out.size()) == count * cols, "ReadRows: out has room for the rows");
  if (out.empty()) return;
  if (IsBitsAndBytes(tensor.type)) return DequantizeRows(tensor, first, out);
  const int64_t row_bytes = cols / BlockValues(tensor.type) * BlockBytes(tensor.type);
  if (tensor.permuted_head_rows == 0) {
    return Dequantize(tensor.type, tensor.data + first * row_bytes, count * cols, out.data());
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* row = tensor.data + StoredRow(tensor, first + i) * row_bytes;
    Dequantize(tensor.type, row, cols, out.data() + i * cols);
  }
}

}  // namespace nibble
