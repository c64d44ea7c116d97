// `nibble inspect PATH`: what is in a model's files, and what serving it would take. Loads nothing.
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/engine.h"
#include "engine/loader/checkpoint.h"
#include "engine/model/model.h"
#include "service/client.h"
#include "service/commands.h"
#include "service/json_line.h"
#include "service/model_spec.h"

namespace nibble {
namespace {

int64_t TotalBytes(const Checkpoint& checkpoint) {
  int64_t bytes = 0;
  for (const TensorRef& tensor : checkpoint.tensors()) bytes += tensor.bytes;
  return bytes;
}

void PrintTensors(const Checkpoint& checkpoint) {
  std::printf("\n%-58s %-18s %-5s %12s\n", "tensor", "shape", "type", "bytes");
  for (const TensorRef& tensor : checkpoint.tensors()) {
    std::printf("%-58s %-18s %-5s %12lld\n", tensor.name.c_str(),
                absl::StrCat("[", absl::StrJoin(tensor.shape, ","), "]").c_str(), Name(tensor.type),
                static_cast<long long>(tensor.bytes));
  }
}

// "nf4 in groups of 64, double-quantized"
std::string FormText(WeightFormat format, const ModelOptions& options) {
  if (!IsFourBit(format)) return Name(format);
  return absl::StrCat(Name(format), " in groups of ", options.group_size,
                      options.double_quant ? ", double-quantized" : "");
}

void PrintPlan(const ModelDescription& model, int64_t budget) {
  const ModelOptions& options = model.options;
  std::printf("\nmemory plan (%s; head %s; kv %lld tokens)\n",
              FormText(options.weights.value_or(WeightFormat::kNf4), options).c_str(),
              FormText(options.head, options).c_str(), static_cast<long long>(model.kv_tokens));
  for (int kind = 0; kind < kNumMemoryKinds; ++kind) {
    const int64_t bytes = model.memory.Total(static_cast<MemoryKind>(kind));
    if (bytes == 0) continue;
    std::printf("  %-12s %14lld  %s\n", Name(static_cast<MemoryKind>(kind)),
                static_cast<long long>(bytes), FormatBytes(bytes).c_str());
  }
  const int64_t total = model.memory.Total();
  std::printf("  %-12s %14lld  %s: %s the budget of %s\n", "total", static_cast<long long>(total),
              FormatBytes(total).c_str(), total <= budget ? "fits" : "DOES NOT FIT",
              FormatBytes(budget).c_str());
}

void PrintHeader(const Checkpoint& checkpoint, const ModelDescription& model) {
  const ModelConfig& config = model.config;
  std::printf("%s: %s, %lld parameters in %zu tensors, %s on disk\n", checkpoint.path().c_str(),
              config.architecture_name.c_str(), static_cast<long long>(model.parameters),
              checkpoint.tensors().size(), FormatBytes(TotalBytes(checkpoint)).c_str());
  std::printf(
      "  layers %lld, hidden %lld, heads %lld (%lld for keys and values, %lld wide), ffn %lld\n",
      static_cast<long long>(config.num_layers), static_cast<long long>(config.hidden),
      static_cast<long long>(config.num_heads), static_cast<long long>(config.num_kv_heads),
      static_cast<long long>(config.head_dim), static_cast<long long>(config.ffn));
  std::printf(
      "  vocabulary %lld, positions %lld; generate: %s, embed: %s, tokenizer: %s, chat template: "
      "%s\n",
      static_cast<long long>(config.vocab), static_cast<long long>(config.max_positions),
      model.can_generate ? "yes" : "no", model.can_embed ? "yes" : "no",
      model.has_tokenizer ? "yes" : "no", model.has_chat_template ? "yes" : "no");
}

void PrintJson(const Checkpoint& checkpoint, const ModelDescription& model) {
  std::string tensors;
  for (const TensorRef& tensor : checkpoint.tensors()) {
    JsonLine line;
    line.Add("name", tensor.name);
    line.AddRaw("shape", absl::StrCat("[", absl::StrJoin(tensor.shape, ","), "]"));
    line.Add("type", Name(tensor.type));
    line.Add("bytes", tensor.bytes);
    absl::StrAppend(&tensors, tensors.empty() ? "" : ",", line.Finish());
  }
  std::string items;
  for (const MemoryItem& item : model.memory.items) {
    JsonLine line;
    line.Add("kind", Name(item.kind));
    line.Add("name", item.name);
    line.Add("bytes", item.bytes);
    absl::StrAppend(&items, items.empty() ? "" : ",", line.Finish());
  }
  JsonLine line;
  line.Add("architecture", model.config.architecture_name);
  line.Add("parameters", model.parameters);
  line.Add("weights", Name(model.options.weights.value_or(WeightFormat::kNf4)));
  line.Add("head", Name(model.options.head));
  line.Add("max_context", model.max_context);
  line.Add("kv_tokens", model.kv_tokens);
  line.Add("total_bytes", model.memory.Total());
  line.AddRaw("memory", absl::StrCat("[", items, "]"));
  line.AddRaw("tensors", absl::StrCat("[", tensors, "]"));
  std::printf("%s\n", line.Finish().c_str());
}

}  // namespace

int RunInspect(const Arguments& args) {
  std::string path;
  bool tensors = false, json = false;
  EngineOptions engine_options;
  ModelFlags model_flags;
  Flags flags(
      "nibble inspect PATH [flags]",
      "Shows a model's architecture and exactly what memory serving it would take. PATH is a "
      "directory in Hugging Face layout or a .gguf file.");
  flags.AddPositional(&path);
  flags.Group("Output");
  flags.Add("tensors", &tensors, "List every tensor.");
  flags.Add("json", &json, "Everything as one JSON object.");
  AddModelFlags(&flags, &model_flags);
  flags.Group("Machine");
  flags.AddBytes("memory", &engine_options.memory_bytes,
                 "The budget to compare with; 0: 80 % of what the machine or cgroup has.");
  int code = 0;
  if (!ParseOrExplain("inspect", &flags, args, &code)) return code;
  absl::StatusOr<ModelOptions> options = ToModelOptions(model_flags);
  if (path.empty() || !options.ok()) {
    std::fprintf(
        stderr, "nibble inspect: %s\n(nibble inspect --help tells the flags)\n",
        path.empty() ? "PATH is required" : std::string{options.status().message()}.c_str());
    return 2;
  }
  auto checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return ReportFailure("inspect", checkpoint.status());
  auto engine = Engine::Create(engine_options);
  if (!engine.ok()) return ReportFailure("inspect", engine.status());
  auto model = (*engine)->EstimateModel({.name = "model", .source = path, .options = *options});
  if (!model.ok()) return ReportFailure("inspect", model.status());
  if (json) {
    PrintJson(**checkpoint, *model);
    return 0;
  }
  PrintHeader(**checkpoint, *model);
  if (tensors) PrintTensors(**checkpoint);
  PrintPlan(*model, (*engine)->options().memory_bytes);
  return 0;
}

}  // namespace nibble
