// A model on disk, opened and checked but not read: config, memory-mapped tensors under Hugging
// Face's names, what a tokenizer needs. Untrusted: each size is checked against the file before
// use.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/tensor.h"
#include "engine/model/config.h"

namespace nibble {

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
  const TensorRef* Find(std::string_view name) const;  // null if absent
  // What the file has besides and nobody computes with: BERT's pooler and heads.
  const std::vector<TensorRef>& others() const { return others_; }
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
  std::vector<TensorRef> tensors_, others_;
  std::map<std::string, size_t, std::less<>> index_;
  std::optional<GgufTokenizer> gguf_tokenizer_;
  std::optional<HuggingFaceTokenizer> hf_tokenizer_;
  std::string chat_template_;
  std::vector<std::unique_ptr<MappedFile>> files_;
};

}  // namespace nibble
