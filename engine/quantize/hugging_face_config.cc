// config.json. GGUF has no word for Llama 3's stretched RoPE, only the divisors it gives, so the
// parameters are found again from those.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/loader/errors.h"
#include "engine/quantize/hugging_face_files.h"
#include "engine/quantize/hugging_face_json.h"
#include "engine/quantize/hugging_face_token_ids.h"

namespace nibble {
namespace {

// Of every Llama 3 there is; the file keeps no trace of them that a short head could not hide.
constexpr float kLowFactor = 1;
constexpr float kHighFactor = 4;

// By which llama3 scaling multiplies the frequency of pair i: 1 for short waves, 1 / factor for
// long ones, and a blend between.
double Llama3Share(const RopeConfig& rope, size_t i, size_t num_pairs) {
  const double exponent = static_cast<double>(i) / static_cast<double>(num_pairs);
  const double wavelength = 2 * std::numbers::pi * std::pow(double{rope.theta}, exponent);
  const double turns = static_cast<double>(rope.original_max_positions) / wavelength;
  const double blend = (turns - rope.low_freq_factor) /
                       (double{rope.high_freq_factor} - double{rope.low_freq_factor});
  const double kept = std::clamp(blend, 0.0, 1.0);
  return (1 - kept) / rope.factor + kept;
}

// Whether the divisors are what a converter computes from `rope` in fp32. Of the roundings on the
// way to 1 / divisor that of the power counts most: an exponent < 1 rounded moves it by up to
// ln(theta) · 2^-25 < 2^-20 of itself for any theta below 10^12, and it enters by at most 4 / 3.
bool ComesFrom(const RopeConfig& rope, const std::vector<float>& divisors) {
  constexpr double kBound = 0x1p-19;
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double share = Llama3Share(rope, i, divisors.size());
    if (std::abs(1 / double{divisors[i]} - share) > kBound) return false;
  }
  return true;
}

std::optional<RopeConfig> FindLlama3(RopeConfig rope) {
  const std::vector<float> divisors = std::exchange(rope.freq_divisors, {});
  rope.type = RopeType::kLlama3;
  rope.factor = divisors.back();
  rope.low_freq_factor = kLowFactor;
  rope.high_freq_factor = kHighFactor;
  for (int64_t original = 256; original <= (1 << 20); original *= 2) {
    rope.original_max_positions = original;
    if (ComesFrom(rope, divisors)) return rope;
  }
  return std::nullopt;
}

// The same rotation without a list of divisors.
absl::StatusOr<RopeConfig> WithoutDivisors(const std::string& file, const RopeConfig& rope) {
  const std::vector<float>& divisors = rope.freq_divisors;
  const bool alike = std::all_of(divisors.begin(), divisors.end(),
                                 [&](float divisor) { return divisor == divisors.front(); });
  RopeConfig out = rope;
  out.freq_divisors.clear();
  if (alike && (divisors.empty() || divisors.front() == 1)) return out;
  if (rope.type == RopeType::kDefault) {
    if (alike) {
      out.type = RopeType::kLinear;
      out.factor = divisors.front();
      return out;
    }
    if (const std::optional<RopeConfig> found = FindLlama3(rope)) return *found;
  }
  return UnsupportedModel(
      file, absl::StrCat("tensor \"rope_freqs.weight\" scales RoPE, with rope_theta ", rope.theta,
                         ", by what config.json has no word for; supported: linear, and llama3 "
                         "with low_freq_factor 1, high_freq_factor 4"));
}

Value RopeScaling(const RopeConfig& rope) {
  if (rope.type == RopeType::kDefault) return json::Null();
  Value::Object scaling = {
      {"rope_type", json::Text(rope.type == RopeType::kLinear ? "linear" : "llama3")},
      {"factor", json::Decimal(rope.factor)}};
  if (rope.type == RopeType::kLlama3) {
    scaling.push_back({"low_freq_factor", json::Decimal(rope.low_freq_factor)});
    scaling.push_back({"high_freq_factor", json::Decimal(rope.high_freq_factor)});
    scaling.push_back(
        {"original_max_position_embeddings", json::Integer(rope.original_max_positions)});
  }
  return json::Object(std::move(scaling));
}

std::string_view TorchName(DType dtype) {
  if (dtype == DType::kF16) return "float16";
  return dtype == DType::kBF16 ? "bfloat16" : "float32";
}

}  // namespace

absl::StatusOr<std::string> HuggingFaceConfig(const Checkpoint& checkpoint, DType dtype) {
  const ModelConfig& config = checkpoint.config();
  Check(config.architecture == Architecture::kLlama, "GGUF's only architecture here is llama");
  const absl::StatusOr<RopeConfig> rope = WithoutDivisors(checkpoint.config_source(), config.rope);
  if (!rope.ok()) return rope.status();
  Value::Object fields = {{"architectures", json::Array({json::Text("LlamaForCausalLM")})},
                          {"model_type", json::Text("llama")},
                          {"torch_dtype", json::Text(TorchName(dtype))},
                          {"vocab_size", json::Integer(config.vocab)},
                          {"hidden_size", json::Integer(config.hidden)},
                          {"intermediate_size", json::Integer(config.ffn)},
                          {"num_hidden_layers", json::Integer(config.num_layers)},
                          {"num_attention_heads", json::Integer(config.num_heads)},
                          {"num_key_value_heads", json::Integer(config.num_kv_heads)},
                          {"head_dim", json::Integer(config.head_dim)},
                          {"max_position_embeddings", json::Integer(config.max_positions)},
                          {"rms_norm_eps", json::Decimal(config.norm_eps)},
                          {"rope_theta", json::Decimal(rope->theta)},
                          {"rope_scaling", RopeScaling(*rope)},
                          {"hidden_act", json::Text("silu")},
                          {"attention_bias", json::Flag(config.attention_bias)},
                          {"mlp_bias", json::Flag(config.mlp_bias)},
                          {"tie_word_embeddings", json::Flag(config.tied_head)}};
  for (Value::Member& id : TokenIds(checkpoint)) fields.push_back(std::move(id));
  return json::Write(json::Object(std::move(fields)));
}

}  // namespace nibble
