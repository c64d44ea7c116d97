#include "engine/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

RopeConfig ConfigOf(simdjson::dom::element golden_case) {
  RopeConfig rope;
  const std::string_view type = golden_case["rope_type"];
  rope.type = type == "llama3"   ? RopeType::kLlama3
              : type == "linear" ? RopeType::kLinear
                                 : RopeType::kDefault;
  rope.theta = static_cast<float>(golden_case["rope_theta"].get_double().value());
  const auto read = [&](const char* key, float* value) {
    double number = 0;
    if (!golden_case[key].get(number)) *value = static_cast<float>(number);
  };
  read("factor", &rope.factor);
  read("low_freq_factor", &rope.low_freq_factor);
  read("high_freq_factor", &rope.high_freq_factor);
  int64_t original = 0;
  if (!golden_case["original_max_position_embeddings"].get(original)) {
    rope.original_max_positions = original;
  }
  return rope;
}

TEST(InverseFrequencies, EqualTransformersForEveryType) {
  const auto golden = testing::ReadGolden("model/rope.json");
  for (simdjson::dom::element golden_case : golden->root["cases"].get_array()) {
    const int64_t head_dim = golden_case["head_dim"];
    const std::vector<float> want = testing::Floats(golden_case["inv_freq"]);
    const std::vector<float> got = InverseFrequencies(ConfigOf(golden_case), head_dim);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      // torch's pow is within 1 ulp of ours, the reciprocal adds half and llama3's blend, with
      // four roundings of nearly equal numbers, at most four more: 6 · 2^-23.
      EXPECT_NEAR(got[i], want[i], 6 * 0x1p-23 * std::fabs(want[i]))
          << std::string_view(golden_case["rope_type"]) << " at " << i;
    }
  }
}

TEST(InverseFrequencies, AreDividedByTheFilesOwnDivisors) {
  RopeConfig rope;
  const std::vector<float> plain = InverseFrequencies(rope, 8);
  rope.freq_divisors = {1, 2, 4, 32};
  const std::vector<float> divided = InverseFrequencies(rope, 8);
  EXPECT_EQ(divided, (std::vector<float>{plain[0], plain[1] / 2, plain[2] / 4, plain[3] / 32}));
}

}  // namespace
}  // namespace nibble
