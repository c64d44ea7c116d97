#include "service/model_spec.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nibble {
namespace {

absl::Status Unwanted(const std::string& key, const std::string& value, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat(key, "=", value, ": want ", wanted));
}

absl::Status SetWeights(const std::string& value, ModelOptions* options) {
  for (const WeightFormat format :
       {WeightFormat::kNf4, WeightFormat::kFp4, WeightFormat::kInt8, WeightFormat::kBf16}) {
    if (value != Name(format)) continue;
    options->weights = format;
    return absl::OkStatus();
  }
  return Unwanted("weights", value, "nf4, fp4, int8 or bf16");
}

absl::Status SetHead(const std::string& value, ModelOptions* options) {
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kInt8, WeightFormat::kBf16}) {
    if (value != Name(format)) continue;
    options->head = format;
    return absl::OkStatus();
  }
  return Unwanted("head", value, "nf4, int8 or bf16");
}

absl::Status SetKvDtype(const std::string& value, ModelOptions* options) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (value == Name(dtype)) {
      options->kv_dtype = dtype;
      return absl::OkStatus();
    }
  }
  return Unwanted("kv_dtype", value, "fp16, bf16 or fp32");
}

absl::Status Set(const std::string& key, const std::string& value, ModelOptions* options) {
  if (key == "weights") return SetWeights(value, options);
  if (key == "head") return SetHead(value, options);
  if (key == "kv_dtype") return SetKvDtype(value, options);
  if (key == "kv_bytes") return ParseBytes(value, &options->kv_bytes);
  if (key == "double_quant") {
    if (value != "true" && value != "false") return Unwanted(key, value, "true or false");
    options->double_quant = value == "true";
    return absl::OkStatus();
  }
  if (key == "group_size") {
    if (!absl::SimpleAtoi(value, &options->group_size)) return Unwanted(key, value, "a number");
    return absl::OkStatus();
  }
  if (key == "skip_modules") {
    options->skip_modules = absl::StrSplit(value, '+', absl::SkipEmpty());
    return absl::OkStatus();
  }
  if (key == "max_context") {
    if (!absl::SimpleAtoi(value, &options->max_context)) return Unwanted(key, value, "a number");
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown option \"", key,
      "\"; want weights, head, group_size, double_quant, skip_modules, kv_dtype, max_context or "
      "kv_bytes"));
}

}  // namespace

absl::StatusOr<LoadRequest> ParseModelSpec(const std::string& spec) {
  const std::vector<std::string> parts = absl::StrSplit(spec, ',');
  const size_t equals = parts[0].find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == parts[0].size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--model ", spec, ": want NAME=PATH[,option=value,...]"));
  }
  LoadRequest request;
  request.name = parts[0].substr(0, equals);
  request.source = parts[0].substr(equals + 1);
  for (size_t i = 1; i < parts.size(); ++i) {
    const size_t at = parts[i].find('=');
    const absl::Status status =
        at == std::string::npos
            ? absl::InvalidArgumentError(absl::StrCat("\"", parts[i], "\" has no value"))
            : Set(parts[i].substr(0, at), parts[i].substr(at + 1), &request.options);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--model ", request.name, ": ", status.message()));
    }
  }
  return request;
}

void AddModelFlags(Flags* flags, ModelFlags* options) {
  flags->Group("Model");
  flags->Add("weights", &options->weights, "nf4|fp4|int8|bf16",
             "How to hold the matrices; empty: as the file is quantized, else nf4.");
  flags->Add(
      "head", &options->head, "nf4|int8|bf16",
      "How to hold lm_head and the token embeddings; empty: bf16, or as the file is quantized.");
  flags->Add("group-size", &options->group_size, "N",
             "Weights that share a scale: 32, 64, 128 ... 4096.");
  flags->Add("double-quant", &options->double_quant, "Hold the scales in 8 bits.");
  flags->Add("skip-modules", &options->skip_modules, "NAME,...",
             "Modules whose matrices stay in 16 bits.");
  flags->Add("kv-dtype", &options->kv_dtype, "fp16|bf16|fp32",
             "Keys and values; empty: bf16 for bf16 models, else fp16.");
  flags->Add("max-context", &options->max_context, "TOKENS",
             "Longest prompt and answer together; 0: the model's own.");
  flags->AddBytes("kv-bytes", &options->kv_bytes,
                  "Size of the KV cache; 0: room for max(max-context, 16384) tokens.");
}

absl::StatusOr<ModelOptions> ToModelOptions(const ModelFlags& flags) {
  ModelOptions options;
  options.group_size = flags.group_size;
  options.double_quant = flags.double_quant;
  options.skip_modules = absl::StrSplit(flags.skip_modules, ',', absl::SkipEmpty());
  options.max_context = flags.max_context;
  options.kv_bytes = flags.kv_bytes;
  if (!flags.weights.empty()) {
    if (const absl::Status status = SetWeights(flags.weights, &options); !status.ok())
      return status;
  }
  if (!flags.head.empty()) {
    if (const absl::Status status = SetHead(flags.head, &options); !status.ok()) return status;
  }
  if (!flags.kv_dtype.empty()) {
    if (const absl::Status status = SetKvDtype(flags.kv_dtype, &options); !status.ok())
      return status;
  }
  return options;
}

}  // namespace nibble
