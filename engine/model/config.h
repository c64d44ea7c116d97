// A model's shape and habits, whatever file it came from. Filled by the loader, read by everyone.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace nibble {

enum class Architecture : uint8_t { kLlama, kBert };
enum class RopeType : uint8_t { kDefault, kLinear, kLlama3 };
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh };

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  float theta = 10000;
  float factor = 1;
  float low_freq_factor = 1;
  float high_freq_factor = 4;
  int64_t original_max_positions = 8192;
  std::vector<float>
      freq_divisors;  // GGUF rope_freqs.weight: inv_freq[i] /= divisor[i]; empty: none
};

// generation_config.json, and the end-of-answer tokens of every file that names some (their union).
struct GenerationDefaults {
  bool do_sample = false;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::vector<int32_t> eos_token_ids;
};

// sentence-transformers' files. `present` is false for a model without them: it embeds only if the
// request says how.
struct EmbeddingConfig {
  bool present = false;
  Pooling pooling = Pooling::kMean;
  bool normalize = false;
  int64_t max_seq_length = 0;  // 0: max_positions
  std::map<std::string, std::string> prompts;
  std::string default_prompt_name;
};

// config.json's quantization_config: the file's matrices are bitsandbytes', but for skipped ones.
struct QuantizationConfig {
  WeightFormat format = WeightFormat::kNf4;  // kNf4, kFp4 or kInt8
  float int8_threshold = 6.0f;               // WeightSpec::outlier_threshold
};

struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  std::string architecture_name;  // as the file spells it: "llama", "LlamaForCausalLM", "BertModel"
  int64_t hidden = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;  // rows of the embedding; may exceed the tokenizer's
  int64_t max_positions = 0;
  int64_t type_vocab = 0;  // BERT
  float norm_eps = 1e-5f;
  Activation activation = Activation::kSilu;
  bool tied_head = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  RopeConfig rope;
  std::optional<QuantizationConfig> quantization;
  DType dtype = DType::kF32;  // of the file's matrices; kF32 also for GGUF blocks
  GenerationDefaults generation;
  EmbeddingConfig embedding;
};

}  // namespace nibble
