// A directory in Hugging Face layout, put together: config.json, weights, generation_config.json,
// tokenizer and sentence-transformers files.
#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/checkpoint_parts.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"
#include "engine/loader/hf_config.h"
#include "engine/loader/hf_quantization.h"
#include "engine/loader/hf_tokenizer_files.h"
#include "engine/loader/hf_weights.h"
#include "engine/loader/json.h"
#include "engine/loader/sentence_transformers.h"

namespace nibble {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kGeneration[] = "generation_config.json";
constexpr int64_t kMaxConfigBytes = 4 << 20;

// A directory without config.json may still hold a GGUF file, which has its own path.
absl::Status NoConfig(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() != ".gguf") continue;
    return NotAModel(BaseName(directory),
                     absl::StrCat("has no config.json; to load ", entry.path().filename().string(),
                                  ", give that file's path"));
  }
  return NotAModel(BaseName(directory), "has no config.json");
}

absl::StatusOr<Value> ReadJson(const std::string& directory, const char* file) {
  const absl::StatusOr<std::string> text =
      ReadTextFile(absl::StrCat(directory, "/", file), kMaxConfigBytes);
  if (!text.ok()) return text.status();
  return ParseJsonObject(file, *text);
}

absl::StatusOr<ModelConfig> ReadConfigs(const std::string& directory) {
  if (!PathExists(absl::StrCat(directory, "/", kConfig))) return NoConfig(directory);
  const absl::StatusOr<Value> json = ReadJson(directory, kConfig);
  if (!json.ok()) return json.status();
  absl::StatusOr<ModelConfig> config = ParseHfConfig(*json);
  if (!config.ok() || !PathExists(absl::StrCat(directory, "/", kGeneration))) return config;
  const absl::StatusOr<Value> generation = ReadJson(directory, kGeneration);
  if (!generation.ok()) return generation.status();
  absl::Status added = AddGenerationConfig(*generation, *config);
  if (!added.ok()) return added;
  return config;
}

absl::Status AddEmbedding(SentenceModules modules, const HfTokenizerFiles& tokenizer,
                          ModelConfig& config) {
  if (!modules.embedding.present) return absl::OkStatus();
  if (modules.pooled_width != 0 && modules.pooled_width != config.hidden) {
    return InconsistentModel("modules.json",
                             absl::StrCat("Pooling takes vectors of ", modules.pooled_width,
                                          ", config.json says hidden_size ", config.hidden));
  }
  if (modules.lower_cases) {
    return UnsupportedModel("sentence_bert_config.json",
                            "do_lower_case true is not supported; "
                            "supported: lower-casing by tokenizer.json");
  }
  config.embedding = std::move(modules.embedding);
  // As sentence-transformers: where no limit is given, the tokenizer's counts.
  int64_t& limit = config.embedding.max_seq_length;
  if (limit == 0) limit = tokenizer.model_max_length;
  limit = limit == 0 ? config.max_positions : std::min(limit, config.max_positions);
  return absl::OkStatus();
}

absl::Status AddTokenizer(HfTokenizerFiles files, CheckpointParts& parts) {
  if (files.eos_id.has_value()) {
    absl::Status added = AddEosId("tokenizer_config.json", *files.eos_id, parts.config);
    if (!added.ok()) return added;
  }
  parts.hf_tokenizer = std::move(files.tokenizer);
  parts.chat_template = std::move(files.chat_template);
  parts.bos_token = std::move(files.bos_token);
  parts.eos_token = std::move(files.eos_token);
  return absl::OkStatus();
}

// The type of the file's matrices, told by the first plain one: they are all alike in practice.
DType MatrixType(const std::vector<TensorRef>& tensors) {
  for (const TensorRef& tensor : tensors) {
    if (tensor.shape.size() != 2 || IsBitsAndBytes(tensor.type)) continue;
    if (tensor.type == TensorType::kF16) return DType::kF16;
    if (tensor.type == TensorType::kBF16) return DType::kBF16;
    return DType::kF32;
  }
  return DType::kF32;
}

}  // namespace

absl::StatusOr<CheckpointParts> ReadHuggingFaceModel(const std::string& directory) {
  absl::StatusOr<SentenceModules> modules = ReadSentenceTransformers(directory);
  if (!modules.ok()) return modules.status();
  const std::string folder = modules->transformer_path.empty()
                                 ? directory
                                 : absl::StrCat(directory, "/", modules->transformer_path);
  absl::StatusOr<ModelConfig> config = ReadConfigs(folder);
  if (!config.ok()) return config.status();
  absl::StatusOr<HfTokenizerFiles> tokenizer = ReadHfTokenizerFiles(folder);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<HfWeights> weights = ReadHfWeights(folder, *config);
  if (!weights.ok()) return weights.status();

  CheckpointParts parts;
  parts.config = *std::move(config);
  parts.config.dtype = MatrixType(weights->tensors);
  parts.config_source = kConfig;
  parts.tensors = std::move(weights->tensors);
  parts.others = std::move(weights->others);
  parts.files = std::move(weights->files);
  absl::Status added = ReconcileQuantization(parts.tensors, &parts.config);
  if (added.ok()) added = AddEmbedding(*std::move(modules), *tokenizer, parts.config);
  if (added.ok()) added = AddTokenizer(*std::move(tokenizer), parts);
  if (!added.ok()) return added;
  return parts;
}

}  // namespace nibble
