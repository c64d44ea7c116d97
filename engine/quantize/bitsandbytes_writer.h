// One quantized matrix as the tensors that bitsandbytes keeps for it, and the quantization_config
// that tells transformers of them. The other direction of engine/loader/bitsandbytes.h, which has
// the grammar.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/quantize/shard_writer.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"
#include "kernels/tensor.h"

namespace nibble {

// name: "….weight". source: the matrix's type before it was quantized.
absl::Status WriteFourBit(const std::string& name, const FourBitMatrix& matrix, DType source,
                          ShardWriter* writer);
absl::Status WriteInt8(const std::string& name, const Int8Matrix& matrix, ShardWriter* writer);
// Upper bounds: of the entries' headers, and of their data.
int64_t QuantizedHeaderBytes(const std::string& name);
int64_t QuantizedDataBytes(const WeightSpec& spec);

// The JSON of a quant_state, byte for byte as bitsandbytes writes it.
std::string QuantStateText(const FourBitMatrix& matrix, DType source);
// The shortest decimal that reads back as `value`, as Python's repr spells it.
std::string PythonRepr(double value);

struct QuantizationText {
  WeightFormat format = WeightFormat::kNf4;
  bool double_quant = true;
  DType compute = DType::kF16;                // for the 16-bit parts
  std::span<const std::string> skip_modules;  // modules with linear layers that are not quantized
};
// The value of config.json's "quantization_config", indented for its place there.
std::string QuantizationConfigText(const QuantizationText& quantization);

}  // namespace nibble
