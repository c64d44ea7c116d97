// A model on disk, opened and checked but not read: config, memory-mapped tensors under Hugging
// Face's names, what a tokenizer needs. Untrusted: each size is checked against the file before
// use.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/config.h"
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

// A matrix in bitsandbytes' form, bit for bit as the file has it; another type aborts.
FourBitMatrix ReadFourBit(const TensorRef& tensor);  // kNF4, kFP4
Int8Matrix ReadInt8(const TensorRef& tensor);        // kINT8

// The tokenizer as GGUF's metadata tells it.
struct GgufTokenizer {
  std::string model;  // "gpt2", "bert", "llama"
  std::string pre;    // "smollm", "llama-bpe", …
  std::vector<std::string> tokens;
  // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
  std::vector<int32_t> token_types;
  std::vector<std::string> merges;
  std::optional<int32_t> bos_id, eos_id, unk_id, pad_id;
  std::optional<bool> add_bos, add_eos;
};

// The text of Hugging Face's files; empty when absent.
struct HuggingFaceTokenizer {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
};

class MappedFile;
struct CheckpointParts;

// Immutable after Open, so any thread may read. Holds the mapped files that its tensors point into.
class Checkpoint {
 public:
  // path: a directory in Hugging Face layout or a .gguf file.
  // Errors: NOT_FOUND (no such path), DATA_LOSS (corrupt: file, what, where), UNIMPLEMENTED (an
  // architecture, tensor type or format we do not have, by name), INVALID_ARGUMENT (not a model; a
  // quantized matrix's scale that is NaN or infinite), FAILED_PRECONDITION (config.json and tensors
  // disagree: both named; or a file that may not be read), INTERNAL (the system failed to read).
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);
  ~Checkpoint();

  const std::string& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  const std::vector<TensorRef>& tensors() const { return tensors_; }
  const TensorRef* Find(std::string_view name) const;                  // null if absent
  const std::string& config_source() const { return config_source_; }  // for messages
  // DATA_LOSS when a mapped file was written to since Open. Checked after the last read of values:
  // what was read from a file that changed meanwhile is worth nothing.
  absl::Status CheckUnchanged() const;
  // MappedFile::Stamp of every file of tensors.
  std::vector<std::string> FileStamps() const;

  // At most one; neither: the model serves token ids.
  const std::optional<GgufTokenizer>& gguf_tokenizer() const { return gguf_tokenizer_; }
  const std::optional<HuggingFaceTokenizer>& hf_tokenizer() const { return hf_tokenizer_; }
  const std::string& chat_template() const { return chat_template_; }  // empty: none
  std::string bos_token, eos_token;  // for the chat template, when the tokenizer's files know them

 private:
  Checkpoint(std::string path, CheckpointParts parts);
  absl::Status IndexTensors();

  std::string path_;
  std::string config_source_;
  ModelConfig config_;
  std::vector<TensorRef> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::optional<GgufTokenizer> gguf_tokenizer_;
  std::optional<HuggingFaceTokenizer> hf_tokenizer_;
  std::string chat_template_;
  std::vector<std::unique_ptr<MappedFile>> files_;
};

}  // namespace nibble
