// The oracle's sampling, step by step in the contract's order, against cases worked out by hand.
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/sampling.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;

SampledToken Sample(std::vector<float> logits, const SamplingPlan& plan) {
  const std::unique_ptr<Backend> backend = *MakeReferenceBackend();
  const auto size = static_cast<int64_t>(logits.size());
  SampledToken sampled;
  backend->Sample({logits.data(), 1, size, size}, {&plan, 1}, {&sampled, 1});
  return sampled;
}

int32_t Token(const std::vector<float>& logits, const SamplingPlan& plan) {
  return Sample(logits, plan).token;
}

// Every token that 2000 draws bring up.
std::set<int32_t> Support(const std::vector<float>& logits, SamplingPlan plan) {
  std::set<int32_t> tokens;
  for (plan.position = 0; plan.position < 2000; ++plan.position) {
    tokens.insert(Token(logits, plan));
  }
  return tokens;
}

std::vector<float> Logs(const std::vector<float>& probabilities) {
  std::vector<float> logits = probabilities;
  for (float& logit : logits) logit = std::log(logit);
  return logits;
}

TEST(ReferenceSampling, GreedyTakesTheLowestOfTheLargest) {
  EXPECT_EQ(Token({1, 3, 2, 3}, {}), 1);
  EXPECT_EQ(Token({std::numeric_limits<float>::quiet_NaN(), -5, -4}, {}), 2);
}

TEST(ReferenceSampling, GreedyIgnoresWhatOnlyShapesADraw) {
  EXPECT_EQ(Token({1, 3, 2}, {.top_k = 2, .top_p = 0.1f, .min_p = 1, .seed = 5}), 1);
}

TEST(ReferenceSampling, BiasComesBeforePenalties) {
  // 1 + 3 = 4, halved to 2; penalties first would leave 0.5 + 3.
  const TokenBias bias = {0, 3};
  const TokenCount count = {0, 1};
  SamplingPlan plan = {.repetition_penalty = 2, .bias = {&bias, 1}, .counts = {&count, 1}};
  EXPECT_EQ(Token({1, 2.5f}, plan), 1);
  EXPECT_EQ(Token({1, 1.5f}, plan), 0);
}

TEST(ReferenceSampling, RepetitionDividesPositiveAndMultipliesNegativeLogitsOfEveryCountedToken) {
  const std::vector<TokenCount> counts = {{0, 0}, {1, 3}};  // a prompt's, an output's
  const SamplingPlan plan = {.repetition_penalty = 2, .counts = counts};
  EXPECT_EQ(Token({4, 4, 2.5f}, plan), 2);
  EXPECT_EQ(Token({-2, -2, -3.5f}, plan), 2);
  EXPECT_EQ(Token({-2, -2, -4.5f}, plan), 0);
}

TEST(ReferenceSampling, FrequencyAndPresenceCountOutputsOnly) {
  const std::vector<TokenCount> counts = {{0, 0}, {1, 3}};
  EXPECT_EQ(Token({1, 2, -9}, {.frequency_penalty = 0.3f, .counts = counts}), 1);
  EXPECT_EQ(Token({1, 2, -9}, {.frequency_penalty = 0.4f, .counts = counts}), 0);
  EXPECT_EQ(Token({1, 2, -9}, {.presence_penalty = 0.9f, .counts = counts}), 1);
  EXPECT_EQ(Token({1, 2, -9}, {.presence_penalty = 1.1f, .counts = counts}), 0);
}

TEST(ReferenceSampling, DrawsWalkAscendingIdsUntilTheirMassPassesU) {
  const std::vector<float> probabilities = {0.1f, 0.4f, 0.2f, 0.3f};
  const std::vector<float> logits = Logs(probabilities);
  for (uint32_t position = 0; position < 1000; ++position) {
    const float u = UniformDraw(9, 2, position);
    float mass = 0;
    int32_t want = -1;
    while (mass <= u) mass += probabilities[static_cast<size_t>(++want)];
    const SamplingPlan plan = {.temperature = 1, .seed = 9, .index = 2, .position = position};
    ASSERT_EQ(Token(logits, plan), want) << position << ": u = " << u;
  }
}

TEST(ReferenceSampling, TemperatureSharpensAndFlattens) {
  const std::vector<float> logits = Logs({0.8f, 0.2f});
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    const double odds = std::pow(4.0, 1 / static_cast<double>(temperature));
    int first = 0;
    constexpr int kDraws = 4000;
    for (uint32_t i = 0; i < kDraws; ++i) {
      first += Token(logits, {.temperature = temperature, .position = i}) == 0 ? 1 : 0;
    }
    const double p = odds / (1 + odds);
    // Four deviations of a binomial; the draws are fixed, so this never flickers.
    EXPECT_NEAR(first, p * kDraws, 4 * std::sqrt(kDraws * p * (1 - p))) << temperature;
  }
}

TEST(ReferenceSampling, TopKBreaksTiesByLowerId) {
  const std::vector<float> logits = {1, 2, 1, 1};
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_k = 1}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_k = 2}), ElementsAre(0, 1));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_k = 3}), ElementsAre(0, 1, 2));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_k = 0}), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_k = 99}), ElementsAre(0, 1, 2, 3));
}

TEST(ReferenceSampling, TopPKeepsTheFewestWhoseMassReachesIt) {
  const std::vector<float> logits = Logs({0.125f, 0.5f, 0.25f, 0.125f});
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_p = 0.01f}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_p = 0.49f}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_p = 0.51f}), ElementsAre(1, 2));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_p = 0.76f}), ElementsAre(0, 1, 2));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_p = 1.0f}), ElementsAre(0, 1, 2, 3));
}

TEST(ReferenceSampling, TopPIsAShareOfWhatTopKLeft) {
  // Of {0.5, 0.25} the first has two thirds.
  const std::vector<float> logits = Logs({0.125f, 0.5f, 0.25f, 0.125f});
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6f}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.temperature = 1, .top_k = 2, .top_p = 0.7f}), ElementsAre(1, 2));
}

TEST(ReferenceSampling, MinPIsRelativeToTheLargestAfterTemperature) {
  const std::vector<float> logits = Logs({0.1f, 0.6f, 0.3f});
  EXPECT_THAT(Support(logits, {.temperature = 1, .min_p = 0.4f}), ElementsAre(1, 2));
  EXPECT_THAT(Support(logits, {.temperature = 1, .min_p = 0.6f}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.temperature = 1, .min_p = 1.0f}), ElementsAre(1));
  // Twice as flat: the ratio one half becomes its square root.
  EXPECT_THAT(Support(logits, {.temperature = 2, .min_p = 0.6f}), ElementsAre(1, 2));
}

TEST(ReferenceSampling, NeverSamplesBannedIdsOrThosePastTheLimit) {
  const std::vector<float> logits = {1, 5, 2, 9};
  const std::vector<int32_t> banned = {1};
  const SamplingPlan plan = {.vocab_limit = 3, .banned = banned};
  EXPECT_EQ(Token(logits, plan), 2);
  SamplingPlan draw = plan;
  draw.temperature = 3;
  EXPECT_THAT(Support(logits, draw), ElementsAre(0, 2));
}

TEST(ReferenceSampling, TakesTheLowestOfInfiniteLogits) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<int32_t> banned = {0};
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(Token({-kInf, -kInf, -kInf}, {.temperature = temperature, .banned = banned}), 1);
    EXPECT_EQ(Token({0, 1, kInf, kInf}, {.temperature = temperature}), 2);
  }
}

TEST(ReferenceSampling, DependsOnSeedIndexAndPositionOnly) {
  const std::vector<float> logits = {0, 0, 0, 0, 0, 0, 0, 0};
  const SamplingPlan plan = {.temperature = 1, .seed = 3, .index = 1, .position = 7};
  std::set<int32_t> seen;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    SamplingPlan other = plan;
    other.seed = seed;
    seen.insert(Token(logits, other));
  }
  EXPECT_EQ(seen.size(), 8u);
  EXPECT_EQ(Token(logits, plan), Token(logits, plan));
}

TEST(ReferenceSampling, LogprobsAreOfTheRawLogits) {
  const TokenBias bias = {2, 100};
  const SampledToken sampled = Sample(Logs({0.5f, 0.125f, 0.125f, 0.25f}),
                                      {.temperature = 0.5f, .num_logprobs = 3, .bias = {&bias, 1}});
  EXPECT_EQ(sampled.token, 2);
  EXPECT_FLOAT_EQ(sampled.logprob, std::log(0.125f));
  ASSERT_EQ(sampled.top.size(), 3u);
  EXPECT_EQ(sampled.top[0].token, 0);
  EXPECT_FLOAT_EQ(sampled.top[0].logprob, std::log(0.5f));
  EXPECT_EQ(sampled.top[1].token, 3);
  EXPECT_EQ(sampled.top[2].token, 1) << "ties: the lower id";
}

TEST(ReferenceSampling, ReportsAsManyLogprobsAsAsked) {
  const std::vector<float> logits = {1, 2, 3};
  EXPECT_TRUE(Sample(logits, {.num_logprobs = -1}).top.empty());
  const SampledToken own = Sample(logits, {.num_logprobs = 0});
  EXPECT_TRUE(own.top.empty());
  EXPECT_NEAR(own.logprob, -0.40760597, 1e-6);
  EXPECT_EQ(Sample(logits, {.num_logprobs = 2}).top.size(), 2u);
  EXPECT_EQ(Sample(logits, {.num_logprobs = 20}).top.size(), 3u);
}

TEST(ReferenceSampling, AForcedTokenIsReportedAndNothingIsDrawn) {
  const std::vector<int32_t> banned = {0};
  const SampledToken sampled =
      Sample(Logs({0.25f, 0.75f}), {.num_logprobs = 1, .banned = banned, .forced_token = 0});
  EXPECT_EQ(sampled.token, 0);
  EXPECT_FLOAT_EQ(sampled.logprob, std::log(0.25f));
  ASSERT_EQ(sampled.top.size(), 1u);
  EXPECT_EQ(sampled.top[0].token, 1);
}

TEST(ReferenceSampling, EachPlanSamplesItsOwnRow) {
  const std::unique_ptr<Backend> backend = *MakeReferenceBackend();
  std::vector<float> logits = {0, 1, 2, 0, 9, 0};
  const std::vector<SamplingPlan> plans = {{.row = 1}, {.row = 0}};
  std::vector<SampledToken> sampled(2);
  backend->Sample({logits.data(), 2, 3, 3}, plans, sampled);
  EXPECT_EQ(sampled[0].token, 1);
  EXPECT_EQ(sampled[1].token, 2);
}

}  // namespace
}  // namespace nibble
