// One tensor of a checkpoint, where it lies in the mapped file and how its values are read.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/four_bit.h"
#include "kernels/int8.h"
#include "kernels/tensor.h"

namespace nibble {

// How a tensor's values are stored. Q… are GGUF's (ggml), the last three bitsandbytes' (quantized).
enum class TensorType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kNF4,
  kFP4,
  kINT8
};
const char* Name(TensorType type);
int64_t BlockValues(TensorType type);  // 1 for plain types
int64_t BlockBytes(TensorType type);
constexpr bool IsBitsAndBytes(TensorType type) { return type >= TensorType::kNF4; }
WeightFormat FormatOf(TensorType type);  // of a bitsandbytes type
// `module` is some of the words between the dots of `name`, side by side: "mlp.gate" of
// "layers.3.mlp.gate.weight".
bool IsPartOf(std::string_view module, std::string_view name);

// What bitsandbytes keeps beside a matrix's codes. Pointers lead into the mapped file, perhaps
// unaligned; their arrays have exactly the sizes that kernels/four_bit.h and kernels/int8.h tell.
struct QuantizedTensor {
  DType source_dtype = DType::kF16;  // before it was quantized; INT8: fp16, which it passes through
  const uint8_t* absmax = nullptr;   // fp32, or 8-bit codes when double_quant; INT8: SCB
  // 4 bits only.
  int32_t group_size = 64;
  bool double_quant = false;
  std::array<float, 16> codebook = {};
  // Double quantization only.
  const uint8_t* nested_absmax = nullptr;
  float nested_offset = 0;
  std::array<float, 256> nested_map = {};
};

// One tensor, in Hugging Face's name and shape ([out, in]; vectors [length]).
struct TensorRef {
  std::string name;
  std::vector<int64_t> shape;
  TensorType type = TensorType::kF32;
  const uint8_t* data = nullptr;  // into the mapped file; perhaps unaligned
  int64_t bytes = 0;
  std::string file;  // for messages: the file's base name
  // GGUF's `llama` stores q and k rows interleaved per head: > 0 means logical row i of each head
  // of this many rows is stored at 2i (first half) or 2(i - rows/2) + 1 (second half).
  int64_t permuted_head_rows = 0;
  std::shared_ptr<const QuantizedTensor> quantized;  // if and only if IsBitsAndBytes(type)

  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  int64_t cols() const;  // product of the other dimensions
  int64_t NumValues() const { return rows() * cols(); }
};

// Logical rows [first, first + count) in fp32, row-major: blocks dequantized, the permutation
// undone. out.size() == count * cols(). Thread-safe.
void ReadRows(const TensorRef& tensor, int64_t first, int64_t count, std::span<float> out);

// Logical rows [first, first + count) as they lie in the file, where that is possible: 16-bit
// values, in order and aligned. Nothing otherwise; ReadRows always works.
struct Halves {
  DType dtype;
  std::span<const uint16_t> values;
};
std::optional<Halves> HalvesInFile(const TensorRef& tensor, int64_t first, int64_t count);

// A matrix in bitsandbytes' form, bit for bit as the file has it; another type aborts.
FourBitMatrix ReadFourBit(const TensorRef& tensor);  // kNF4, kFP4
Int8Matrix ReadInt8(const TensorRef& tensor);        // kINT8

}  // namespace nibble
