// The checks, field by field, in the order of the contract.
#include "engine/sampling/params.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>

#include "engine/status.h"
#include "engine/tokenizer/utf8.h"

namespace nibble {
namespace {

constexpr float kMaxFloat = std::numeric_limits<float>::max();

struct Range {
  float low;  // inclusive
  float high;
  std::string_view wanted;
};
constexpr Range kTemperature = {0, kMaxFloat, "finite and >= 0"};
constexpr Range kTopP = {std::numeric_limits<float>::denorm_min(), 1, "in (0, 1]"};
constexpr Range kMinP = {0, 1, "in [0, 1]"};
constexpr Range kRepetition = {0.001f, 1000, "in [0.001, 1000]"};
constexpr Range kAddedPenalty = {-2, 2, "in [-2, 2]"};

bool Inside(float value, const Range& range) { return value >= range.low && value <= range.high; }

absl::Status Invalid(std::string_view reason, const std::string& message, std::string_view field) {
  return Error(absl::StatusCode::kInvalidArgument, reason, absl::StrCat(Str(field), message),
               field);
}

// "sampling.top_p is 2, wanted in (0, 1]".
template <typename Number>
absl::Status OutOfRange(std::string_view field, Number got, std::string_view wanted) {
  return Invalid("VALUE_OUT_OF_RANGE", absl::StrCat(" is ", got, ", wanted ", Str(wanted)), field);
}

absl::Status CheckCap(std::string_view field, int64_t got, int64_t cap, std::string_view what) {
  if (got <= cap) return absl::OkStatus();
  return Invalid("OVER_CAP", absl::StrCat(" has ", got, Str(what), ", the cap is ", cap), field);
}

absl::Status CheckToken(std::string_view field, int32_t token, int32_t vocabulary) {
  if (token >= 0 && token < vocabulary) return absl::OkStatus();
  return Invalid("TOKEN_OUT_OF_RANGE",
                 absl::StrCat(" names token ", token, ", the model has 0 to ", vocabulary - 1),
                 field);
}

// The request's value, else the file's, else the neutral one.
absl::Status Resolve(std::string_view field, const std::optional<float>& request,
                     const std::optional<float>& file, const Range& range, float* value) {
  if (request.has_value()) {
    if (!Inside(*request, range)) return OutOfRange(field, *request, range.wanted);
    *value = *request;
  } else if (file.has_value() && Inside(*file, range)) {
    *value = *file;
  }
  return absl::OkStatus();
}

absl::Status ResolveTemperature(const SamplingParams& request, const GenerationDefaults& defaults,
                                float* temperature) {
  constexpr float kGreedyBelow = 1e-5f;
  *temperature = 0;
  std::optional<float> file;
  if (defaults.do_sample) {
    *temperature = 1;
    file = defaults.temperature;
  }
  absl::Status status =
      Resolve("sampling.temperature", request.temperature, file, kTemperature, temperature);
  if (*temperature < kGreedyBelow) *temperature = 0;
  return status;
}

absl::Status ResolveTopK(const SamplingParams& request, const GenerationDefaults& defaults,
                         int32_t* top_k) {
  *top_k = std::max(request.top_k.value_or(defaults.top_k.value_or(0)), 0);
  if (request.top_k.value_or(0) >= 0) return absl::OkStatus();
  return OutOfRange("sampling.top_k", *request.top_k, ">= 0");
}

absl::Status ResolveBias(const SamplingParams& request, const RequestCaps& caps, int32_t vocabulary,
                         std::vector<TokenBias>* bias) {
  constexpr std::string_view kField = "sampling.logit_bias";
  absl::Status status = CheckCap(kField, static_cast<int64_t>(request.logit_bias.size()),
                                 caps.max_logit_bias, " entries");
  if (!status.ok()) return status;
  int64_t num_banned = 0;
  bias->reserve(request.logit_bias.size());
  for (const auto& [token, addend] : request.logit_bias) {
    if (status = CheckToken(kField, token, vocabulary); !status.ok()) return status;
    if (!(addend <= kMaxFloat)) return OutOfRange(kField, addend, "finite, or -inf: never");
    num_banned += std::isinf(addend) ? 1 : 0;
    bias->push_back({token, addend});
  }
  if (num_banned < vocabulary) return absl::OkStatus();
  return Invalid("VALUE_OUT_OF_RANGE", " leaves no token that may be sampled", kField);
}

absl::Status CheckN(int32_t n, const RequestCaps& caps) {
  if (n < 1) return OutOfRange("sampling.n", n, ">= 1");
  if (n <= caps.max_n) return absl::OkStatus();
  return Invalid("OVER_CAP", absl::StrCat(" is ", n, ", the cap is ", caps.max_n), "sampling.n");
}

absl::Status CheckStopStrings(const std::vector<std::string>& stop, const RequestCaps& caps) {
  constexpr std::string_view kField = "stopping.stop";
  absl::Status status =
      CheckCap(kField, static_cast<int64_t>(stop.size()), caps.max_stop_strings, " strings");
  for (size_t i = 0; status.ok() && i < stop.size(); ++i) {
    const std::string field = absl::StrCat(Str(kField), "[", i, "]");
    if (stop[i].empty()) {
      status = Invalid("EMPTY_STOP_STRING", " is empty: it would stop everywhere", field);
    } else if (utf8::FindInvalid(stop[i]) != utf8::kNone) {
      status = Invalid("INVALID_UTF8",
                       absl::StrCat(" is no UTF-8 at byte ", utf8::FindInvalid(stop[i])), field);
    } else {
      status = CheckCap(field, static_cast<int64_t>(stop[i].size()), caps.max_stop_bytes, " bytes");
    }
  }
  return status;
}

absl::Status CheckStopTokens(const std::vector<int32_t>& ids, const RequestCaps& caps,
                             int32_t vocabulary) {
  constexpr std::string_view kField = "stopping.stop_token_ids";
  absl::Status status =
      CheckCap(kField, static_cast<int64_t>(ids.size()), caps.max_stop_token_ids, " ids");
  for (size_t i = 0; status.ok() && i < ids.size(); ++i) {
    status = CheckToken(absl::StrCat(Str(kField), "[", i, "]"), ids[i], vocabulary);
  }
  return status;
}

absl::Status CheckTokenLimits(const StoppingParams& stopping, const RequestCaps& caps) {
  const std::optional<int32_t>& max_tokens = stopping.max_tokens;
  if (max_tokens.value_or(1) < 1) return OutOfRange("stopping.max_tokens", *max_tokens, ">= 1");
  if (caps.max_output_tokens > 0 && max_tokens.value_or(1) > caps.max_output_tokens) {
    return Invalid("OVER_CAP",
                   absl::StrCat(" is ", *max_tokens, ", the cap is ", caps.max_output_tokens),
                   "stopping.max_tokens");
  }
  const int32_t min_tokens = stopping.min_tokens;
  if (min_tokens < 0) return OutOfRange("stopping.min_tokens", min_tokens, ">= 0");
  if (min_tokens > max_tokens.value_or(min_tokens)) {
    return OutOfRange("stopping.min_tokens", min_tokens,
                      absl::StrCat("<= max_tokens, ", *max_tokens));
  }
  return absl::OkStatus();
}

absl::Status CheckLogprobs(std::string_view field, int32_t got, const RequestCaps& caps) {
  if (got < -1) return OutOfRange(field, got, ">= 0, or absent");
  if (got <= caps.max_logprobs) return absl::OkStatus();
  return Invalid("OVER_CAP", absl::StrCat(" is ", got, ", the cap is ", caps.max_logprobs), field);
}

}  // namespace

absl::StatusOr<ResolvedSampling> ResolveSampling(const SamplingParams& request,
                                                 const GenerationDefaults& defaults,
                                                 const RequestCaps& caps, int32_t vocabulary) {
  ResolvedSampling resolved;
  SamplingPlan& plan = resolved.plan;
  const std::optional<float> none;
  absl::Status status = ResolveTemperature(request, defaults, &plan.temperature);
  status.Update(ResolveTopK(request, defaults, &plan.top_k));
  status.Update(Resolve("sampling.top_p", request.top_p, defaults.top_p, kTopP, &plan.top_p));
  status.Update(Resolve("sampling.min_p", request.min_p, defaults.min_p, kMinP, &plan.min_p));
  status.Update(Resolve("sampling.repetition_penalty", request.repetition_penalty,
                        defaults.repetition_penalty, kRepetition, &plan.repetition_penalty));
  status.Update(Resolve("sampling.frequency_penalty", request.frequency_penalty, none,
                        kAddedPenalty, &plan.frequency_penalty));
  status.Update(Resolve("sampling.presence_penalty", request.presence_penalty, none, kAddedPenalty,
                        &plan.presence_penalty));
  status.Update(ResolveBias(request, caps, vocabulary, &resolved.bias));
  status.Update(CheckN(request.n, caps));
  if (!status.ok()) return status;
  plan.vocab_limit = vocabulary;
  resolved.penalized =
      plan.repetition_penalty != 1 || plan.frequency_penalty != 0 || plan.presence_penalty != 0;
  return resolved;
}

absl::Status CheckStopping(const StoppingParams& stopping, const RequestCaps& caps,
                           int32_t vocabulary) {
  absl::Status status = CheckTokenLimits(stopping, caps);
  status.Update(CheckStopStrings(stopping.stop, caps));
  status.Update(CheckStopTokens(stopping.stop_token_ids, caps, vocabulary));
  return status;
}

absl::Status CheckOutput(const OutputParams& output, const RequestCaps& caps) {
  absl::Status status = CheckLogprobs("output.logprobs", output.logprobs, caps);
  status.Update(CheckLogprobs("output.prompt_logprobs", output.prompt_logprobs, caps));
  return status;
}

}  // namespace nibble
