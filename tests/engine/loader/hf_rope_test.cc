#include "engine/loader/hf_rope.h"

#include <gtest/gtest.h>

#include <string>

#include "engine/loader/json.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

absl::StatusOr<RopeConfig> Parse(const std::string& text) {
  const auto json = ParseJsonObject("config.json", text);
  if (!json.ok()) return json.status();
  Fields fields("config.json", *json);
  RopeConfig rope;
  ReadHfRope(fields, rope);
  if (!fields.status().ok()) return fields.status();
  return rope;
}

void ExpectLlama3(const absl::StatusOr<RopeConfig>& rope) {
  ASSERT_THAT(rope, IsOk());
  EXPECT_EQ(rope->type, RopeType::kLlama3);
  EXPECT_EQ(rope->theta, 500000.0f);
  EXPECT_EQ(rope->factor, 32.0f);
  EXPECT_EQ(rope->low_freq_factor, 1.0f);
  EXPECT_EQ(rope->high_freq_factor, 4.0f);
  EXPECT_EQ(rope->original_max_positions, 8192);
}

TEST(HfRope, ReadsVersion4) {
  ExpectLlama3(Parse(R"({"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":32.0,
      "low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}})"));
}

TEST(HfRope, ReadsVersion5) {
  ExpectLlama3(Parse(R"({"rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,
      "factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
      "original_max_position_embeddings":8192}})"));
  const auto plain = Parse(R"({"rope_parameters":{"rope_type":"default","rope_theta":77}})");
  ASSERT_THAT(plain, IsOk());
  EXPECT_EQ(plain->type, RopeType::kDefault);
  EXPECT_EQ(plain->theta, 77.0f);
}

TEST(HfRope, ReadsLinearUnderEitherKey) {
  for (const char* key : {"type", "rope_type"}) {
    const auto rope =
        Parse(std::string("{\"rope_scaling\":{\"") + key + "\":\"linear\",\"factor\":2.0}}");
    ASSERT_THAT(rope, IsOk());
    EXPECT_EQ(rope->type, RopeType::kLinear);
    EXPECT_EQ(rope->factor, 2.0f);
    EXPECT_EQ(rope->theta, 10000.0f);
  }
}

TEST(HfRope, RefusesOtherTypesByName) {
  for (const char* type : {"dynamic", "yarn", "longrope", "su"}) {
    EXPECT_THAT(Parse(std::string("{\"rope_scaling\":{\"type\":\"") + type + "\",\"factor\":2.0}}"),
                StatusIs(absl::StatusCode::kUnimplemented,
                         HasSubstr(std::string("rope_scaling: RoPE type \"") + type +
                                   "\" is not supported; supported: default, linear, llama3")));
  }
  EXPECT_THAT(Parse(R"({"partial_rotary_factor":0.5})"),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("partial_rotary_factor 0.5")));
}

TEST(HfRope, NamesWhatIsMissingOrImpossible) {
  const auto lost = [](const char* part) {
    return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
  };
  EXPECT_THAT(Parse(R"({"rope_scaling":{"type":"linear"}})"),
              lost("config.json: rope_scaling: \"factor\" is missing"));
  EXPECT_THAT(Parse(R"({"rope_scaling":{"rope_type":"llama3","factor":8}})"),
              lost("\"low_freq_factor\" is missing"));
  EXPECT_THAT(Parse(R"({"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,
      "high_freq_factor":4,"original_max_position_embeddings":8192}})"),
              lost("high_freq_factor is not above low_freq_factor"));
  EXPECT_THAT(Parse(R"({"rope_theta":0})"), lost("\"rope_theta\" is 0"));
  EXPECT_THAT(Parse(R"({"rope_theta":1e300})"), lost("\"rope_theta\" is 1e+300"));
  EXPECT_THAT(Parse(R"({"rope_scaling":[]})"), lost("wanted an object"));
}

}  // namespace
}  // namespace nibble
