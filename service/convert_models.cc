// Models and Control: options in; descriptions, caps and memory out.
#include <array>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "service/convert.h"
#include "service/metrics.h"

namespace nibble {
namespace {

absl::Status NotInThisVersion(const char* field, const std::string& value) {
  return Error(absl::StatusCode::kUnimplemented, "NOT_IN_THIS_VERSION",
               absl::StrCat(field, ": ", value, " is not in this version"), field);
}

absl::Status UnknownValue(const char* field, int value) {
  return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_ENUM_VALUE",
               absl::StrCat(field, ": value ", value, " is not known"), field);
}

absl::StatusOr<std::optional<WeightFormat>> FromProto(v1::WeightFormat proto) {
  switch (proto) {
    case v1::WEIGHT_FORMAT_UNSPECIFIED:
      return std::nullopt;
    case v1::WEIGHT_FORMAT_NF4:
      return WeightFormat::kNf4;
    case v1::WEIGHT_FORMAT_BF16:
      return WeightFormat::kBf16;
    case v1::WEIGHT_FORMAT_FP4:
      return WeightFormat::kFp4;
    case v1::WEIGHT_FORMAT_INT8:
      return WeightFormat::kInt8;
    default:
      return UnknownValue("options.weights", proto);
  }
}

absl::StatusOr<WeightFormat> FromProto(v1::HeadFormat proto) {
  switch (proto) {
    case v1::HEAD_FORMAT_UNSPECIFIED:
    case v1::HEAD_FORMAT_BF16:
      return WeightFormat::kBf16;
    case v1::HEAD_FORMAT_INT8:
      return WeightFormat::kInt8;
    case v1::HEAD_FORMAT_NF4:
      return WeightFormat::kNf4;
    default:
      return UnknownValue("options.head", proto);
  }
}

v1::HeadFormat HeadToProto(WeightFormat head) {
  switch (head) {
    case WeightFormat::kInt8:
      return v1::HEAD_FORMAT_INT8;
    case WeightFormat::kNf4:
      return v1::HEAD_FORMAT_NF4;
    default:
      return v1::HEAD_FORMAT_BF16;
  }
}

// One mode serves all models of a server.
absl::Status CheckCompute(v1::Compute proto, Compute server) {
  const auto refuse_unless = [&](Compute wanted) {
    if (wanted == server) return absl::OkStatus();
    return NotInThisVersion("options.compute",
                            absl::StrCat(Name(wanted), " beside this server's ", Name(server)));
  };
  switch (proto) {
    case v1::COMPUTE_UNSPECIFIED:
    case v1::COMPUTE_AUTO:
      return absl::OkStatus();
    case v1::COMPUTE_FP32:
      return refuse_unless(Compute::kFp32);
    case v1::COMPUTE_BF16:
      return refuse_unless(Compute::kBf16);
    case v1::COMPUTE_INT8:
      return refuse_unless(Compute::kInt8);
    default:
      return UnknownValue("options.compute", proto);
  }
}

absl::StatusOr<std::optional<DType>> FromProto(v1::KvDtype proto) {
  switch (proto) {
    case v1::KV_DTYPE_UNSPECIFIED:
      return std::nullopt;
    case v1::KV_DTYPE_FP32:
      return DType::kF32;
    case v1::KV_DTYPE_FP16:
      return DType::kF16;
    case v1::KV_DTYPE_BF16:
      return DType::kBF16;
    default:
      return UnknownValue("options.kv_dtype", proto);
  }
}

v1::KvDtype ToProto(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return v1::KV_DTYPE_FP32;
    case DType::kF16:
      return v1::KV_DTYPE_FP16;
    case DType::kBF16:
      return v1::KV_DTYPE_BF16;
  }
  return v1::KV_DTYPE_UNSPECIFIED;
}

v1::Pooling ToProto(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return v1::POOLING_MEAN;
    case Pooling::kCls:
      return v1::POOLING_CLS;
    case Pooling::kLast:
      return v1::POOLING_LAST;
  }
  return v1::POOLING_UNSPECIFIED;
}

v1::ModelState ToProto(ModelState state) {
  switch (state) {
    case ModelState::kLoading:
      return v1::MODEL_STATE_LOADING;
    case ModelState::kReady:
      return v1::MODEL_STATE_READY;
    case ModelState::kUnloading:
      return v1::MODEL_STATE_UNLOADING;
  }
  return v1::MODEL_STATE_UNSPECIFIED;
}

v1::MemoryKind ToProto(MemoryKind kind) {
  static constexpr std::array<v1::MemoryKind, kNumMemoryKinds> kKinds = {
      v1::MEMORY_KIND_WEIGHTS,   v1::MEMORY_KIND_EMBEDDINGS, v1::MEMORY_KIND_KV_CACHE,
      v1::MEMORY_KIND_WORKSPACE, v1::MEMORY_KIND_GRAPHS,     v1::MEMORY_KIND_TOKENIZER,
      v1::MEMORY_KIND_OTHER};
  return kKinds[static_cast<size_t>(kind)];
}

// The last part of a path: clients need not know where a server keeps its files.
std::string BaseName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

void OptionsToProto(const ModelOptions& options, v1::Model* proto) {
  static constexpr std::array<v1::WeightFormat, kNumWeightFormats> kFormats = {
      v1::WEIGHT_FORMAT_NF4, v1::WEIGHT_FORMAT_FP4, v1::WEIGHT_FORMAT_INT8, v1::WEIGHT_FORMAT_BF16,
      v1::WEIGHT_FORMAT_BF16};
  const WeightFormat format = options.weights.value_or(WeightFormat::kNf4);
  proto->set_weights(kFormats[static_cast<size_t>(format)]);
  proto->set_head(HeadToProto(options.head));
  if (IsFourBit(format) || IsFourBit(options.head)) {
    proto->set_group_size(options.group_size);
    proto->set_double_quant(options.double_quant);
  }
  for (const std::string& module : options.skip_modules) proto->add_skip_modules(module);
}

void EmbeddingToProto(const ModelDescription& model, v1::Model* proto) {
  const EmbeddingConfig& embedding = model.config.embedding;
  proto->set_dimensions(model.config.hidden);
  proto->set_max_seq_length(embedding.max_seq_length > 0 ? embedding.max_seq_length
                                                         : model.max_context);
  if (embedding.present) proto->set_default_pooling(ToProto(embedding.pooling));
  for (const auto& [name, prompt] : embedding.prompts) proto->add_prompt_names(name);
}

void MemoryToProto(const MemoryPlan& plan, v1::Model* proto) {
  for (int i = 0; i < kNumMemoryKinds; ++i) {
    const auto kind = static_cast<MemoryKind>(i);
    if (plan.Total(kind) == 0) continue;
    v1::MemoryItem* item = proto->add_memory();
    item->set_kind(ToProto(kind));
    item->set_bytes(plan.Total(kind));
  }
  proto->set_memory_bytes(plan.Total());
}

}  // namespace

absl::StatusOr<ModelOptions> FromProto(const v1::LoadOptions& proto, const std::string& device,
                                       Compute compute) {
  const auto weights = FromProto(proto.weights());
  if (!weights.ok()) return weights.status();
  const auto head = FromProto(proto.head());
  if (!head.ok()) return head.status();
  const auto kv_dtype = FromProto(proto.kv_dtype());
  if (!kv_dtype.ok()) return kv_dtype.status();
  if (absl::Status status = CheckCompute(proto.compute(), compute); !status.ok()) return status;
  if (!proto.device().empty() && proto.device() != "auto" && proto.device() != device) {
    return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_DEVICE",
                 absl::StrCat("options.device: this server computes on ", device),
                 "options.device");
  }
  ModelOptions options;
  options.weights = *weights;
  options.head = *head;
  if (proto.group_size() != 0) options.group_size = proto.group_size();
  options.double_quant = !proto.has_double_quant() || proto.double_quant();
  options.kv_dtype = *kv_dtype;
  options.max_context = proto.max_context();
  options.kv_bytes = proto.kv_bytes();
  options.skip_modules.assign(proto.skip_modules().begin(), proto.skip_modules().end());
  return options;
}

void ToProto(const ModelDescription& model, v1::Model* proto) {
  proto->set_name(model.name);
  proto->set_source(BaseName(model.source));
  proto->set_state(ToProto(model.state));
  if (model.state == ModelState::kLoading) return;  // the rest is not known yet
  proto->set_architecture(model.config.architecture_name);
  OptionsToProto(model.options, proto);
  proto->set_compute(model.compute);
  if (model.kv_tokens > 0 && model.options.kv_dtype.has_value()) {
    proto->set_kv_dtype(ToProto(*model.options.kv_dtype));
  }
  proto->set_device(model.device);
  proto->set_can_generate(model.can_generate);
  proto->set_can_embed(model.can_embed);
  proto->set_has_tokenizer(model.has_tokenizer);
  proto->set_has_chat_template(model.has_chat_template);
  proto->set_max_context(model.max_context);
  proto->set_kv_tokens(model.kv_tokens);
  proto->set_parameters(model.parameters);
  proto->set_vocabulary(model.vocabulary);
  if (model.can_embed) EmbeddingToProto(model, proto);
  MemoryToProto(model.memory, proto);
}

void ToProto(const MemoryItem& item, v1::MemoryItem* proto) {
  proto->set_kind(ToProto(item.kind));
  proto->set_name(item.name);
  proto->set_bytes(item.bytes);
}

void ToProto(const LoadProgress& progress, v1::LoadProgress* proto) {
  proto->set_stage(progress.stage);
  proto->set_done_bytes(progress.done_bytes);
  proto->set_total_bytes(progress.total_bytes);
}

void ToProto(const RequestCaps& caps, v1::Caps* proto) {
  proto->set_max_n(caps.max_n);
  proto->set_max_stop_strings(caps.max_stop_strings);
  proto->set_max_stop_bytes(caps.max_stop_bytes);
  proto->set_max_stop_token_ids(caps.max_stop_token_ids);
  proto->set_max_logit_bias(caps.max_logit_bias);
  proto->set_max_logprobs(caps.max_logprobs);
  proto->set_max_output_tokens(caps.max_output_tokens);
  proto->set_max_messages(caps.max_messages);
  proto->set_max_inputs(caps.max_inputs);
  proto->set_max_prompt_bytes(caps.max_prompt_bytes);
}

void ToProto(const ServerOptions& options, v1::Limits* proto) {
  proto->set_max_receive_message_bytes(options.max_receive_message_bytes);
  proto->set_max_metadata_bytes(options.max_metadata_bytes);
  proto->set_max_connections(options.max_connections);
  proto->set_max_concurrent_streams(options.max_concurrent_streams);
  proto->set_max_queued_requests(options.engine.max_queued_requests);
  proto->set_max_queued_tokens(options.engine.max_queued_tokens);
  proto->set_send_stall_timeout_ms(absl::ToDoubleMilliseconds(options.send_stall_timeout));
  proto->set_drain_timeout_ms(absl::ToDoubleMilliseconds(options.drain_timeout));
}

void ToProto(const EngineStats& stats, v1::GetMemoryResponse* proto) {
  v1::DeviceMemory* device = proto->add_devices();
  device->set_device(stats.device);
  device->set_budget_bytes(stats.memory_budget_bytes);
  int64_t used = 0;
  for (const Ledger::Entry& entry : stats.memory) {
    v1::MemoryEntry* out = device->add_entries();
    out->set_model(entry.owner);
    out->set_kind(ToProto(entry.kind));
    out->set_bytes(entry.bytes);
    used += entry.bytes;
  }
  device->set_used_bytes(used);
  const ProcessMemory process = ReadProcessMemory();
  proto->mutable_process()->set_resident_bytes(process.resident);
  proto->mutable_process()->set_anonymous_bytes(process.anonymous);
  proto->mutable_process()->set_file_bytes(process.file);
}

}  // namespace nibble
