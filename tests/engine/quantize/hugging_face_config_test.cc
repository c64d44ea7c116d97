// config.json, read back by our own reader of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/loader/hf_config.h"
#include "engine/loader/json.h"
#include "tests/engine/quantize/hugging_face_round_trip.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::GgufWriter;
using ::nibble::testing::IsOk;
using ::nibble::testing::OpenDirectoryOf;
using ::nibble::testing::OpenGguf;
using ::nibble::testing::Ramp;
using ::nibble::testing::RawBytes;
using ::nibble::testing::StatusIs;
using ::testing::EndsWith;
using ::testing::HasSubstr;

struct Divided {
  float theta = 500000;
  std::vector<float> divisors;
};

std::unique_ptr<Checkpoint> OpenDivided(
    const Divided& rope, std::function<void(GgufWriter&)> more = [](auto&) {}) {
  const auto pairs = static_cast<int64_t>(rope.divisors.size());
  const auto add = [&](GgufWriter& w) {
    w.AddF32("llama.rope.freq_base", rope.theta);
    w.AddTensor("rope_freqs.weight", {pairs}, 0, RawBytes(rope.divisors));
    more(w);
  };
  return OpenGguf(10, add, 2 * pairs);
}

absl::StatusOr<RopeConfig> RopeOf(const Checkpoint& checkpoint) {
  const auto text = HuggingFaceConfig(checkpoint, DType::kF16);
  if (!text.ok()) return text.status();
  const auto config = ParseHfConfig(*ParseJsonObject("config.json", *text));
  if (!config.ok()) return config.status();
  return config->rope;
}

// As converters compute it: in fp32, from the wavelength of each pair.
std::vector<float> Llama3Divisors(float theta, int pairs, float factor, float original) {
  std::vector<float> divisors;
  for (int i = 0; i < pairs; ++i) {
    const float exponent = static_cast<float>(i) / static_cast<float>(pairs);
    const float frequency = 1 / std::pow(theta, exponent);
    const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
    const float blend = (original / wavelength - 1) / 3;
    if (wavelength < original / 4) {
      divisors.push_back(1);
    } else if (wavelength > original) {
      divisors.push_back(factor);
    } else {
      divisors.push_back(1 / ((1 - blend) / factor + blend));
    }
  }
  return divisors;
}

TEST(HuggingFaceConfig, ReadsBackAsTheGguf) {
  const auto gguf = OpenGguf(12, [](GgufWriter& w) {
    w.AddF32("llama.rope.freq_base", 100000);
    w.AddTensor("output.weight", {12, 8}, 0, Ramp({12, 8}));
  });
  const auto directory = OpenDirectoryOf(*gguf);
  ASSERT_NE(directory, nullptr);
  testing::ExpectSameShape(directory->config(), gguf->config());
  testing::ExpectSameRope(directory->config().rope, gguf->config().rope);
  EXPECT_FALSE(directory->config().tied_head);
  EXPECT_EQ(directory->config().architecture_name, "LlamaForCausalLM");
}

TEST(HuggingFaceConfig, KeepsBiasesAndHeadsOfTheirOwnWidth) {
  const std::vector<std::pair<const char*, int64_t>> biases = {
      {"attn_q", 12}, {"attn_k", 6},    {"attn_v", 6},  {"attn_output", 8},
      {"ffn_up", 12}, {"ffn_gate", 12}, {"ffn_down", 8}};
  const auto add = [&](GgufWriter& w) {
    for (const auto& [part, width] : biases) {
      w.AddTensor("blk.0." + std::string(part) + ".bias", {width}, 0, Ramp({width}));
    }
  };
  const auto gguf = OpenGguf(10, add, 6);
  const auto directory = OpenDirectoryOf(*gguf);
  ASSERT_NE(directory, nullptr);
  testing::ExpectSameShape(directory->config(), gguf->config());
  EXPECT_EQ(directory->config().head_dim, 6);
  EXPECT_TRUE(directory->config().attention_bias);
  EXPECT_TRUE(directory->config().mlp_bias);
}

TEST(HuggingFaceConfig, IsAnObjectThatTakesMoreMembers) {
  const auto gguf = OpenGguf(10, [](GgufWriter& w) { testing::TinyGguf::AddTokenizer(w); });
  const auto text = HuggingFaceConfig(*gguf, DType::kBF16);
  ASSERT_THAT(text, IsOk());
  EXPECT_THAT(*text, EndsWith("\n}\n"));
  EXPECT_THAT(*text, HasSubstr("\"torch_dtype\": \"bfloat16\""));
  EXPECT_THAT(*text, HasSubstr("\"rms_norm_eps\": 1e-05"));
  EXPECT_THAT(*text, HasSubstr("\"rope_theta\": 10000.0"));
  EXPECT_THAT(*text, HasSubstr("\"rope_scaling\": null"));
  EXPECT_THAT(*text, HasSubstr("\"bos_token_id\": 1,\n  \"eos_token_id\": 2,"));
  EXPECT_THAT(*HuggingFaceConfig(*gguf, DType::kF16), HasSubstr("\"torch_dtype\": \"float16\""));
  EXPECT_THAT(*HuggingFaceConfig(*gguf, DType::kF32), HasSubstr("\"torch_dtype\": \"float32\""));
}

TEST(HuggingFaceConfig, SaysThatThereAreNoTokens) {
  const auto gguf = OpenGguf(10, [](GgufWriter&) {});
  const auto text = HuggingFaceConfig(*gguf, DType::kF16);
  ASSERT_THAT(text, IsOk());
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    EXPECT_THAT(*text, HasSubstr("\"" + std::string(key) + "\": null"));
  }
}

TEST(HuggingFaceConfig, KeepsLinearScaling) {
  const auto gguf = OpenGguf(10, [](GgufWriter& w) {
    w.AddText("llama.rope.scaling.type", "linear");
    w.AddF32("llama.rope.scaling.factor", 2.5f);
  });
  const auto rope = RopeOf(*gguf);
  ASSERT_THAT(rope, IsOk());
  testing::ExpectSameRope(*rope, gguf->config().rope);
}

TEST(HuggingFaceConfig, FindsLlama3sScalingAgain) {
  struct Model {
    float theta;
    int pairs;
    float factor;
    float original;
  };
  for (const Model& model : {Model{500000, 64, 8, 8192}, Model{500000, 32, 32, 8192},
                             Model{500000, 64, 16, 8192}, Model{1e6f, 40, 4, 4096}}) {
    const auto gguf = OpenDivided(
        {model.theta, Llama3Divisors(model.theta, model.pairs, model.factor, model.original)});
    const auto rope = RopeOf(*gguf);
    ASSERT_THAT(rope, IsOk());
    EXPECT_EQ(rope->type, RopeType::kLlama3);
    EXPECT_EQ(rope->theta, model.theta);
    EXPECT_EQ(rope->factor, model.factor);
    EXPECT_EQ(rope->low_freq_factor, 1);
    EXPECT_EQ(rope->high_freq_factor, 4);
    EXPECT_EQ(rope->original_max_positions, static_cast<int64_t>(model.original));
  }
}

TEST(HuggingFaceConfig, TakesDivisorsThatAreAllAlikeForLinearScaling) {
  const auto none = RopeOf(*OpenDivided({10000, {1, 1}}));
  ASSERT_THAT(none, IsOk());
  EXPECT_EQ(none->type, RopeType::kDefault);
  const auto linear = RopeOf(*OpenDivided({10000, {3, 3}}));
  ASSERT_THAT(linear, IsOk());
  EXPECT_EQ(linear->type, RopeType::kLinear);
  EXPECT_EQ(linear->factor, 3);
}

TEST(HuggingFaceConfig, RefusesDivisorsThatNoScalingGives) {
  const auto refused =
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("m.gguf: tensor \"rope_freqs.weight\""));
  EXPECT_THAT(RopeOf(*OpenDivided({10000, {8, 1}})), refused);
  std::vector<float> divisors = Llama3Divisors(500000, 64, 8, 8192);
  EXPECT_THAT(RopeOf(*OpenDivided({10000, divisors})), refused);
  // One in the blend, a ten-thousandth off.
  for (float& divisor : divisors) {
    if (divisor <= 1 || divisor >= 8) continue;
    divisor *= 1.0001f;
    break;
  }
  EXPECT_THAT(RopeOf(*OpenDivided({500000, divisors})), refused);
  // Both of GGUF's ways to scale at once.
  EXPECT_THAT(RopeOf(*OpenDivided({500000, Llama3Divisors(500000, 64, 8, 8192)},
                                  [](GgufWriter& w) {
                                    w.AddText("llama.rope.scaling.type", "linear");
                                    w.AddF32("llama.rope.scaling.factor", 2);
                                  })),
              refused);
}

}  // namespace
}  // namespace nibble
