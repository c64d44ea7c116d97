// Defaults, ranges and the size of the KV cache.
#include "engine/model/sizing.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/inventory.h"
#include "engine/status.h"

namespace nibble {
namespace {

absl::Status OutOfRange(const std::string& field, const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, "OPTION_OUT_OF_RANGE", message, field);
}

int64_t PagesFor(int64_t positions) { return (positions + kPageSlots - 1) / kPageSlots; }

std::string Megabytes(double bytes) { return absl::StrFormat("%.1f MB", bytes / 1e6); }

absl::Status DoesNotFit(const KvCache& kv, int64_t max_context, const MemoryPlan& others,
                        int64_t free_bytes) {
  const int64_t room = std::max<int64_t>(free_bytes - others.Total(), 0);
  const int64_t fits = room / kv.PageBytes() * kPageSlots;
  std::string advice = "give it more memory";
  if (fits > 0) absl::StrAppend(&advice, " or a max_context of at most ", fits);
  return Error(
      absl::StatusCode::kFailedPrecondition, "OUT_OF_MEMORY_BUDGET",
      absl::StrCat("the model does not fit: one context of ", max_context, " positions takes ",
                   Megabytes(static_cast<double>(PagesFor(max_context)) *
                             static_cast<double>(kv.PageBytes())),
                   " of KV cache (", kv.PageBytes() / kPageSlots, " bytes a position, ",
                   Name(kv.dtype), "), and of ", Megabytes(static_cast<double>(free_bytes)),
                   " free, ", Megabytes(static_cast<double>(room)), " are left beside ",
                   others.Breakdown(), "; ", advice));
}

// A file that is quantized already keeps its form.
absl::Status FollowFile(const TensorRef* quantized, const ModelOptions& options,
                        ModelOptions* resolved) {
  if (quantized == nullptr) return absl::OkStatus();
  const WeightFormat format = FormatOf(quantized->type);
  if (options.weights.value_or(format) != format) {
    return OutOfRange("options.weights", absl::StrCat("weights is ", Name(*options.weights), ", ",
                                                      quantized->file, " is quantized already, to ",
                                                      Name(format), "; leave weights out"));
  }
  if (!options.skip_modules.empty()) {
    return OutOfRange("options.skip_modules",
                      absl::StrCat(quantized->file, " is quantized already, to ", Name(format),
                                   "; no module can be skipped any more"));
  }
  resolved->weights = format;
  if (!IsFourBit(format)) return absl::OkStatus();
  resolved->group_size = quantized->quantized->group_size;
  resolved->double_quant = quantized->quantized->double_quant;
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckDimensions(const ModelConfig& config) {
  const std::pair<const char*, int64_t> dimensions[] = {
      {"hidden_size", config.hidden},
      {"num_hidden_layers", config.num_layers},
      {"num_attention_heads", config.num_heads},
      {"num_key_value_heads", config.num_kv_heads},
      {"head_dim", config.head_dim},
      {"intermediate_size", config.ffn},
      {"vocab_size", config.vocab},
      {"max_position_embeddings", config.max_positions},
  };
  constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();
  for (const auto& [name, value] : dimensions) {
    if (value >= 1 && value <= kLargest) continue;
    return Error(absl::StatusCode::kFailedPrecondition, "CONFIG_MISMATCH",
                 absl::StrCat("config of architecture ", config.architecture_name, ": ", name,
                              " is ", value, ", it must be from 1 to ", kLargest));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelOptions> ResolveOptions(const ModelOptions& options, const ModelConfig& config,
                                            const TensorRef* quantized) {
  ModelOptions resolved = options;
  resolved.weights = options.weights.value_or(WeightFormat::kNf4);
  if (resolved.weights == WeightFormat::kF16) {
    return OutOfRange("options.weights", "weights is fp16, it may be nf4, fp4, int8 or bf16");
  }
  if (options.head == WeightFormat::kF16 || options.head == WeightFormat::kFp4) {
    return OutOfRange("options.head", absl::StrCat("head is ", Name(options.head),
                                                   ", it may be nf4, int8 or bf16"));
  }
  if (absl::Status status = FollowFile(quantized, options, &resolved); !status.ok()) return status;
  constexpr size_t kMaxSkipped = 1024;  // each is looked for in every tensor's name
  if (options.skip_modules.size() > kMaxSkipped) {
    return OutOfRange("options.skip_modules",
                      absl::StrCat("skip_modules has ", options.skip_modules.size(),
                                   " names, it may have ", kMaxSkipped));
  }
  if (!IsAllowedGroupSize(options.group_size)) {
    return OutOfRange("options.group_size",
                      absl::StrCat("group_size is ", options.group_size,
                                   ", it may be 32, 64, 128, 256, 512, 1024, 2048 or 4096"));
  }
  if (options.max_context < 0) {
    return OutOfRange("options.max_context", absl::StrCat("max_context is ", options.max_context,
                                                          ", it must be at least 0"));
  }
  if (options.kv_bytes < 0) {
    return OutOfRange("options.kv_bytes",
                      absl::StrCat("kv_bytes is ", options.kv_bytes, ", it must be at least 0"));
  }
  const int64_t own = config.max_positions;
  resolved.max_context = options.max_context == 0 ? own : std::min(options.max_context, own);
  const DType sixteen = config.dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
  resolved.kv_dtype = options.kv_dtype.value_or(sixteen);
  return resolved;
}

absl::StatusOr<KvCache> SizeKvCache(const ModelConfig& config, const MemoryPlan& others,
                                    int64_t free_bytes, ModelOptions* options) {
  KvCache kv;
  kv.dtype = *options->kv_dtype;
  kv.num_layers = config.num_layers;
  kv.num_kv_heads = config.num_kv_heads;
  kv.head_dim = config.head_dim;
  if (options->kv_bytes > 0) {
    kv.num_pages = options->kv_bytes / kv.PageBytes();
    if (kv.num_pages == 0) {
      return OutOfRange("options.kv_bytes",
                        absl::StrCat("kv_bytes is ", options->kv_bytes, ", one page of ",
                                     kPageSlots, " positions takes ", kv.PageBytes()));
    }
    kv.num_pages = std::min<int64_t>(kv.num_pages, std::numeric_limits<int32_t>::max());
    options->max_context = std::min(options->max_context, kv.num_pages * kPageSlots);
    options->kv_bytes = kv.Bytes();
    return kv;
  }
  const int64_t wanted = PagesFor(std::max(options->max_context, kDefaultKvPositions));
  const int64_t needed = PagesFor(options->max_context);
  const int64_t room = (free_bytes - others.Total()) / kv.PageBytes();
  kv.num_pages = std::min(wanted, room);
  if (kv.num_pages < needed) return DoesNotFit(kv, options->max_context, others, free_bytes);
  options->kv_bytes = kv.Bytes();
  return kv;
}

}  // namespace nibble
