// Inference: requests in, pieces and vectors out.
#include <bit>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "service/convert.h"

namespace nibble {
namespace {

absl::Status UnknownValue(const std::string& field, int value) {
  return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_ENUM_VALUE",
               absl::StrCat(field, ": value ", value, " is not known"), field);
}

std::vector<int32_t> IdsOf(const v1::TokenIds& proto) {
  return {proto.ids().begin(), proto.ids().end()};
}

template <typename T, typename Proto>
std::optional<T> Optional(bool present, Proto value) {
  return present ? std::optional<T>(value) : std::nullopt;
}

ChatPrompt FromProto(const v1::Chat& proto) {
  ChatPrompt chat;
  for (const v1::ChatMessage& message : proto.messages()) {
    chat.messages.push_back({message.role(), message.content()});
  }
  return chat;
}

SamplingParams FromProto(const v1::Sampling& proto) {
  SamplingParams params;
  params.temperature = Optional<float>(proto.has_temperature(), proto.temperature());
  params.top_k = Optional<int32_t>(proto.has_top_k(), proto.top_k());
  params.top_p = Optional<float>(proto.has_top_p(), proto.top_p());
  params.min_p = Optional<float>(proto.has_min_p(), proto.min_p());
  params.repetition_penalty =
      Optional<float>(proto.has_repetition_penalty(), proto.repetition_penalty());
  params.frequency_penalty =
      Optional<float>(proto.has_frequency_penalty(), proto.frequency_penalty());
  params.presence_penalty = Optional<float>(proto.has_presence_penalty(), proto.presence_penalty());
  params.logit_bias = {proto.logit_bias().begin(), proto.logit_bias().end()};
  params.seed = Optional<uint64_t>(proto.has_seed(), proto.seed());
  if (proto.has_n()) params.n = proto.n();
  return params;
}

StoppingParams FromProto(const v1::Stopping& proto) {
  StoppingParams params;
  params.max_tokens = Optional<int32_t>(proto.has_max_tokens(), proto.max_tokens());
  params.min_tokens = proto.min_tokens();
  params.stop = {proto.stop().begin(), proto.stop().end()};
  params.stop_token_ids = {proto.stop_token_ids().begin(), proto.stop_token_ids().end()};
  params.ignore_eos = proto.ignore_eos();
  params.include_stop = proto.include_stop();
  return params;
}

// Absent is -1 to the engine, so a negative count has to be refused here.
absl::StatusOr<int32_t> CountOf(const char* field, bool present, int32_t value) {
  if (!present) return -1;
  if (value >= 0) return value;
  return Error(absl::StatusCode::kInvalidArgument, "VALUE_OUT_OF_RANGE",
               absl::StrCat(field, ": ", value, " is negative"), field);
}

absl::StatusOr<OutputParams> FromProto(const v1::Output& proto) {
  const auto logprobs = CountOf("output.logprobs", proto.has_logprobs(), proto.logprobs());
  if (!logprobs.ok()) return logprobs.status();
  const auto prompt_logprobs =
      CountOf("output.prompt_logprobs", proto.has_prompt_logprobs(), proto.prompt_logprobs());
  if (!prompt_logprobs.ok()) return prompt_logprobs.status();
  return OutputParams{proto.token_ids(), *logprobs, *prompt_logprobs};
}

absl::StatusOr<Priority> FromProto(v1::Priority proto) {
  switch (proto) {
    case v1::PRIORITY_UNSPECIFIED:
    case v1::PRIORITY_NORMAL:
      return Priority::kNormal;
    case v1::PRIORITY_LOW:
      return Priority::kLow;
    case v1::PRIORITY_HIGH:
      return Priority::kHigh;
    default:
      return UnknownValue("priority", proto);
  }
}

absl::StatusOr<std::optional<Pooling>> FromProto(v1::Pooling proto) {
  switch (proto) {
    case v1::POOLING_UNSPECIFIED:
      return std::nullopt;
    case v1::POOLING_MEAN:
      return Pooling::kMean;
    case v1::POOLING_CLS:
      return Pooling::kCls;
    case v1::POOLING_LAST:
      return Pooling::kLast;
    default:
      return UnknownValue("pooling", proto);
  }
}

absl::StatusOr<Truncation> FromProto(v1::Truncation proto) {
  switch (proto) {
    case v1::TRUNCATION_UNSPECIFIED:
    case v1::TRUNCATION_NONE:
      return Truncation::kNone;
    case v1::TRUNCATION_RIGHT:
      return Truncation::kRight;
    case v1::TRUNCATION_LEFT:
      return Truncation::kLeft;
    default:
      return UnknownValue("truncation", proto);
  }
}

void ToProto(std::vector<TokenLogprobs> logprobs,
             google::protobuf::RepeatedPtrField<v1::TokenLogprobs>* proto) {
  for (TokenLogprobs& entry : logprobs) {
    v1::TokenLogprobs* out = proto->Add();
    out->set_token_id(entry.token_id);
    out->set_token(std::move(entry.token));
    out->set_logprob(entry.logprob);
    for (LogprobTop& top : entry.top) {
      v1::TopLogprob* top_out = out->add_top();
      top_out->set_token_id(top.token_id);
      top_out->set_token(std::move(top.token));
      top_out->set_logprob(top.logprob);
    }
  }
}

void ToProto(const Usage& usage, v1::Usage* proto) {
  proto->set_prompt_tokens(usage.prompt_tokens);
  proto->set_cached_prompt_tokens(usage.cached_prompt_tokens);
  proto->set_completion_tokens(usage.completion_tokens);
}

void ToProto(const Timing& timing, v1::Timing* proto) {
  proto->set_queue_ms(timing.queue_ms);
  proto->set_prefill_ms(timing.prefill_ms);
  proto->set_decode_ms(timing.decode_ms);
  proto->set_time_to_first_token_ms(timing.time_to_first_token_ms);
}

void FinishToProto(GenerateChunk* chunk, v1::GenerateResponse* proto) {
  proto->set_finish_reason(chunk->finish_reason == FinishReason::kStop ? v1::FINISH_REASON_STOP
                                                                       : v1::FINISH_REASON_LENGTH);
  if (chunk->stop_token_id.has_value()) proto->mutable_stop()->set_token_id(*chunk->stop_token_id);
  if (chunk->stop_text.has_value()) proto->mutable_stop()->set_text(std::move(*chunk->stop_text));
  ToProto(chunk->usage, proto->mutable_usage());
  ToProto(chunk->timing, proto->mutable_timing());
  proto->set_model(std::move(chunk->model));
  proto->set_seed(chunk->seed);
}

// The bytes of `Bits`, least significant first, on any machine.
template <typename Bits>
void AppendLittleEndian(Bits bits, std::string* out) {
  for (size_t i = 0; i < sizeof(bits); ++i) {
    out->push_back(static_cast<char>((bits >> (8 * i)) & 0xFF));
  }
}

void ToProto(const Embedding& embedding, v1::Encoding encoding, v1::Embedding* proto) {
  proto->set_num_tokens(embedding.num_tokens);
  proto->set_truncated(embedding.truncated);
  if (encoding == v1::ENCODING_FLOAT) {
    proto->mutable_values()->Add(embedding.values.begin(), embedding.values.end());
    return;
  }
  std::string* packed = proto->mutable_packed();
  for (const float value : embedding.values) {
    if (encoding == v1::ENCODING_BYTES_FP32) {
      AppendLittleEndian(std::bit_cast<uint32_t>(value), packed);
    } else {
      AppendLittleEndian(std::bit_cast<uint16_t>(static_cast<_Float16>(value)), packed);
    }
  }
}

}  // namespace

absl::StatusOr<GenerateRequest> FromProto(const v1::GenerateRequest& proto) {
  const absl::StatusOr<OutputParams> output = FromProto(proto.output());
  if (!output.ok()) return output.status();
  const absl::StatusOr<Priority> priority = FromProto(proto.priority());
  if (!priority.ok()) return priority.status();
  GenerateRequest request;
  request.model = proto.model();
  if (proto.has_text()) request.prompt = TextPrompt{proto.text()};
  if (proto.has_token_ids()) request.prompt = TokenPrompt{IdsOf(proto.token_ids())};
  if (proto.has_chat()) request.prompt = FromProto(proto.chat());
  request.sampling = FromProto(proto.sampling());
  request.stopping = FromProto(proto.stopping());
  request.output = *output;
  request.priority = *priority;
  request.add_special_tokens = !proto.has_add_special_tokens() || proto.add_special_tokens();
  return request;
}

absl::StatusOr<EmbedRequest> FromProto(const v1::EmbedRequest& proto) {
  const absl::StatusOr<std::optional<Pooling>> pooling = FromProto(proto.pooling());
  if (!pooling.ok()) return pooling.status();
  const absl::StatusOr<Truncation> truncation = FromProto(proto.truncation());
  if (!truncation.ok()) return truncation.status();
  EmbedRequest request;
  request.model = proto.model();
  for (int i = 0; i < proto.inputs_size(); ++i) {
    const v1::EmbedInput& input = proto.inputs(i);
    if (input.has_text()) {
      request.inputs.emplace_back(TextPrompt{input.text()});
    } else if (input.has_token_ids()) {
      request.inputs.emplace_back(TokenPrompt{IdsOf(input.token_ids())});
    } else {
      const std::string field = absl::StrCat("inputs[", i, "]");
      return Error(absl::StatusCode::kInvalidArgument, "INPUT_MISSING",
                   absl::StrCat(field, ": has neither text nor token_ids"), field);
    }
  }
  request.dimensions = proto.dimensions();
  request.normalize = Optional<bool>(proto.has_normalize(), proto.normalize());
  request.pooling = *pooling;
  request.prompt_name = proto.prompt_name();
  request.truncation = *truncation;
  return request;
}

void ToProto(GenerateChunk chunk, bool token_ids, v1::GenerateResponse* proto) {
  proto->Clear();
  proto->set_index(chunk.index);
  proto->set_text(std::move(chunk.text));
  if (token_ids) proto->mutable_token_ids()->Add(chunk.token_ids.begin(), chunk.token_ids.end());
  ToProto(std::move(chunk.logprobs), proto->mutable_logprobs());
  ToProto(std::move(chunk.prompt_logprobs), proto->mutable_prompt_logprobs());
  if (chunk.finish_reason != FinishReason::kNone) FinishToProto(&chunk, proto);
}

absl::StatusOr<v1::Encoding> EncodingOf(const v1::EmbedRequest& proto) {
  if (proto.encoding() == v1::ENCODING_UNSPECIFIED) return v1::ENCODING_FLOAT;
  if (v1::Encoding_IsValid(proto.encoding())) return proto.encoding();
  return UnknownValue("encoding", proto.encoding());
}

void ToProto(const EmbedResult& result, v1::Encoding encoding, v1::EmbedResponse* proto) {
  for (const Embedding& embedding : result.embeddings) {
    ToProto(embedding, encoding, proto->add_embeddings());
  }
  ToProto(result.usage, proto->mutable_usage());
  ToProto(result.timing, proto->mutable_timing());
  proto->set_model(result.model);
}

void ToProto(const std::vector<Encoding>& encodings, v1::TokenizeResponse* proto) {
  for (const Encoding& encoding : encodings) {
    v1::TokenizedText* out = proto->add_tokens();
    out->mutable_ids()->Add(encoding.ids.begin(), encoding.ids.end());
    for (const TokenOffset& offset : encoding.offsets) {
      v1::TokenOffset* offset_out = out->add_offsets();
      offset_out->set_begin(offset.begin);
      offset_out->set_end(offset.end);
    }
  }
}

std::vector<std::vector<int32_t>> TokensOf(const v1::DetokenizeRequest& proto) {
  std::vector<std::vector<int32_t>> tokens;
  for (const v1::TokenIds& ids : proto.tokens()) tokens.push_back(IdsOf(ids));
  return tokens;
}

}  // namespace nibble
