// Sampling on the CPU against the reference, token by token, and bit by bit over ISA rows, threads
// and neighbours.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<SampledToken> SampleAll(Backend& backend, const Matrix& logits,
                                    const std::vector<SamplingPlan>& plans) {
  BackendLimits limits;
  limits.max_vocab = logits.cols();
  limits.max_samples = static_cast<int64_t>(plans.size());
  const LentScratch scratch(backend, limits);
  std::vector<SampledToken> sampled(plans.size());
  backend.Sample(logits.View(), plans, sampled);
  return sampled;
}

void ExpectEqual(const SampledToken& got, const SampledToken& want, const std::string& what) {
  EXPECT_EQ(got.token, want.token) << what;
  EXPECT_EQ(got.logprob, want.logprob) << what;
  ASSERT_EQ(got.top.size(), want.top.size()) << what;
  for (size_t i = 0; i < got.top.size(); ++i) {
    EXPECT_EQ(got.top[i].token, want.top[i].token) << what;
    EXPECT_EQ(got.top[i].logprob, want.top[i].logprob) << what;
  }
}

// Logprobs: the sum of exponentials is wrong by 2 ulp each and chains of 64 additions, so its
// logarithm by 70 · 2^-24; the result's own rounding comes on top.
void ExpectClose(const SampledToken& got, const SampledToken& want, const std::string& what) {
  const auto near = [&](float a, float b) {
    EXPECT_LE(std::abs(a - b), 70 * kUlp + kUlp * 2 * std::abs(b)) << what;
  };
  EXPECT_EQ(got.token, want.token) << what;
  near(got.logprob, want.logprob);
  ASSERT_EQ(got.top.size(), want.top.size()) << what;
  for (size_t i = 0; i < got.top.size(); ++i) {
    EXPECT_EQ(got.top[i].token, want.top[i].token) << what;
    near(got.top[i].logprob, want.top[i].logprob);
  }
}

void ExpectAsReference(const Matrix& logits, const std::vector<SamplingPlan>& plans) {
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const std::vector<SampledToken> want = SampleAll(*reference, logits, plans);
  const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
  const std::vector<SampledToken> first = SampleAll(*backends[0], logits, plans);
  for (size_t i = 0; i < plans.size(); ++i) {
    ExpectClose(first[i], want[i], absl::StrCat("plan ", i));
  }
  for (const auto& backend : backends) {
    const std::vector<SampledToken> got = SampleAll(*backend, logits, plans);
    for (size_t i = 0; i < plans.size(); ++i) {
      ExpectEqual(got[i], first[i], absl::StrCat(NameOf(*backend), ", plan ", i));
    }
  }
}

SamplingPlan Drawing(float temperature, uint64_t seed) {
  SamplingPlan plan;
  plan.temperature = temperature;
  plan.seed = seed;
  return plan;
}

TEST(CpuSample, DrawsTheReferencesTokensForEveryFilter) {
  Random random(1);
  for (const int64_t vocab : {1, 7, 1000, 3000, 20011}) {
    const Matrix logits(4, vocab, random, 3);
    std::vector<SamplingPlan> plans;
    for (uint64_t i = 0; i < 120; ++i) {
      SamplingPlan plan = Drawing(0.2f + 0.3f * static_cast<float>(i % 5), 1000 + i);
      plan.row = static_cast<int32_t>(i % 4);
      plan.position = static_cast<uint32_t>(i);
      plan.index = static_cast<uint32_t>(i % 3);
      if (i % 2 == 1) plan.top_k = static_cast<int32_t>(1 + i % 60);
      if (i % 3 == 1) plan.top_p = 0.05f + 0.9f * static_cast<float>(i) / 120;
      if (i % 5 == 1) plan.min_p = 0.01f * static_cast<float>(i % 20);
      if (i % 7 == 1) plan.vocab_limit = static_cast<int32_t>(1 + vocab / 2);
      if (i % 4 == 1) plan.num_logprobs = static_cast<int32_t>(i % 9);
      plans.push_back(plan);
    }
    ExpectAsReference(logits, plans);
  }
}

TEST(CpuSample, FlatDistributionsUnderTopPAreCutWhereTheReferenceCuts) {
  Random random(2);
  const Matrix logits(1, 5000, random, 0.3f);
  std::vector<SamplingPlan> plans;
  for (uint64_t i = 0; i < 40; ++i) {
    plans.push_back(Drawing(1.5f, i));
    plans.back().top_p = 0.5f + 0.012f * static_cast<float>(i);
  }
  ExpectAsReference(logits, plans);
}

TEST(CpuSample, MinPWithoutTopPKeepsAllThatReachIt) {
  Random random(9);
  const Matrix logits(1, 3000, random, 1);
  std::vector<SamplingPlan> plans;
  for (uint64_t i = 0; i < 60; ++i) {
    plans.push_back(Drawing(1.0f, i));
    plans.back().min_p = 0.001f * static_cast<float>(1 + i % 20);
  }
  ExpectAsReference(logits, plans);
}

TEST(CpuSample, LogprobsOfARowWithoutAFiniteMaximumEnd) {
  Matrix logits(2, 40);
  for (int64_t i = 0; i < 40; ++i) logits.At(0, i) = i % 2 == 0 ? kNan : -kInf;
  logits.At(1, 7) = kInf;
  SamplingPlan nothing;
  nothing.num_logprobs = 2;
  SamplingPlan everything = nothing;
  everything.row = 1;
  for (const auto& backend : EveryCpu()) {
    const std::vector<SampledToken> got = SampleAll(*backend, logits, {nothing, everything});
    EXPECT_EQ(got[0].token, 0);
    EXPECT_EQ(got[1].token, 7);
    ASSERT_EQ(got[1].top.size(), 2u);
    EXPECT_EQ(got[1].top[1].logprob, -kInf);
  }
}

TEST(CpuSample, BiasPenaltiesAndBansComeBeforeEverythingElse) {
  Random random(3);
  const Matrix logits(3, 500, random, 2);
  const TokenBias bias[] = {{3, 9.0f}, {4, -100.0f}, {499, 8.5f}, {7, 1.0f}};
  const TokenCount counts[] = {{3, 4}, {10, 0}, {499, 1}, {20, 2}};
  const int32_t banned[] = {499, 11};
  std::vector<SamplingPlan> plans;
  for (uint64_t i = 0; i < 60; ++i) {
    SamplingPlan plan = Drawing(i % 3 == 0 ? 0 : 0.8f, i);
    plan.row = static_cast<int32_t>(i % 3);
    plan.top_k = i % 2 == 0 ? 0 : 12;
    if (i % 4 != 0) plan.bias = bias;
    if (i % 5 != 0) plan.counts = counts;
    if (i % 6 != 0) plan.banned = banned;
    plan.repetition_penalty = 1 + 0.1f * static_cast<float>(i % 4);
    plan.frequency_penalty = 0.2f * static_cast<float>(i % 3);
    plan.presence_penalty = 0.3f * static_cast<float>(i % 2);
    plan.num_logprobs = 3;
    plans.push_back(plan);
  }
  ExpectAsReference(logits, plans);
}

TEST(CpuSample, TiesGoToTheLowestToken) {
  Matrix logits(1, 3000);
  for (const int64_t token : {2500, 70, 1999, 71}) logits.At(0, token) = 4;
  SamplingPlan greedy;
  greedy.num_logprobs = 3;
  SamplingPlan top_one = Drawing(1, 5);
  top_one.top_k = 1;
  for (const auto& backend : EveryCpu()) {
    const std::vector<SampledToken> got = SampleAll(*backend, logits, {greedy, top_one});
    EXPECT_EQ(got[0].token, 70);
    ASSERT_EQ(got[0].top.size(), 3u);
    EXPECT_EQ(got[0].top[0].token, 70);
    EXPECT_EQ(got[0].top[1].token, 71);
    EXPECT_EQ(got[0].top[2].token, 1999);
    EXPECT_EQ(got[1].token, 70);
  }
}

TEST(CpuSample, ForcedTokensAreReportedNotDrawn) {
  Random random(4);
  const Matrix logits(1, 100, random);
  SamplingPlan plan = Drawing(1, 1);
  plan.forced_token = 42;
  plan.num_logprobs = 2;
  ExpectAsReference(logits, {plan});
}

TEST(CpuSample, NanAndMinusInfinityAreNeverChosen) {
  Random random(5);
  Matrix logits(1, 2500, random);
  for (int64_t i = 0; i < 2500; i += 3) logits.At(0, i) = kNan;
  for (int64_t i = 1; i < 2500; i += 3) logits.At(0, i) = -kInf;
  std::vector<SamplingPlan> plans;
  for (uint64_t i = 0; i < 40; ++i) {
    plans.push_back(Drawing(i % 4 == 0 ? 0 : 1, i));
    plans.back().top_k = i % 3 == 0 ? 0 : 2000;
    plans.back().top_p = i % 5 == 0 ? 1 : 0.7f;
    plans.back().num_logprobs = 1;
  }
  ExpectAsReference(logits, plans);
}

TEST(CpuSample, WhenEverythingIsImpossibleTheLowestTokenThatIsNotBannedWins) {
  Matrix logits(1, 40);
  for (int64_t i = 0; i < 40; ++i) logits.At(0, i) = -kInf;
  const int32_t banned[] = {0, 1};
  SamplingPlan plan;
  plan.banned = banned;
  for (const auto& backend : EveryCpu()) {
    EXPECT_EQ(SampleAll(*backend, logits, {plan})[0].token, 2);
  }
}

TEST(CpuSample, TheTinyTemperatureIsGreedy) {
  Random random(6);
  const Matrix logits(1, 300, random);
  SamplingPlan greedy;
  for (const auto& backend : EveryCpu()) {
    const std::vector<SampledToken> got =
        SampleAll(*backend, logits, {greedy, Drawing(1e-40f, 3), Drawing(1e-6f, 3)});
    EXPECT_EQ(got[1].token, got[0].token);
    EXPECT_EQ(got[2].token, got[0].token);
  }
}

TEST(CpuSample, FrequenciesFollowTheProbabilities) {
  Matrix logits(1, 1500);
  for (int64_t i = 0; i < 1500; ++i) logits.At(0, i) = -30;
  logits.At(0, 5) = std::log(0.5f);
  logits.At(0, 700) = std::log(0.3f);
  logits.At(0, 1400) = std::log(0.2f);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  std::vector<SamplingPlan> plans;
  for (uint64_t seed = 0; seed < 20000; ++seed) plans.push_back(Drawing(1, seed));
  std::map<int32_t, int> counts;
  for (const SampledToken& token : SampleAll(*cpu, logits, plans)) ++counts[token.token];
  // Five standard deviations of a binomial count: 5·√(20000·p·(1-p)).
  EXPECT_NEAR(counts[5], 10000, 354);
  EXPECT_NEAR(counts[700], 6000, 325);
  EXPECT_NEAR(counts[1400], 4000, 283);
}

TEST(CpuSample, KeepsTheCapacityOfTheTopList) {
  Random random(7);
  const Matrix logits(1, 200, random);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  BackendLimits limits;
  limits.max_vocab = 200;
  limits.max_samples = 1;
  const LentScratch scratch(*cpu, limits);
  SamplingPlan plan;
  plan.num_logprobs = 20;
  SampledToken sampled;
  sampled.top.reserve(20);
  const TokenLogprob* const memory = sampled.top.data();
  for (int i = 0; i < 3; ++i) cpu->Sample(logits.View(), {&plan, 1}, {&sampled, 1});
  EXPECT_EQ(sampled.top.size(), 20u);
  EXPECT_EQ(sampled.top.data(), memory);
}

TEST(CpuSampleDeathTest, AbortsWhenEveryTokenIsBanned) {
  const Matrix logits(1, 2);
  const int32_t banned[] = {0, 1};
  SamplingPlan plan;
  plan.banned = banned;
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  EXPECT_DEATH(SampleAll(*cpu, logits, {plan}), "every token is banned");
}

TEST(CpuSampleDeathTest, AbortsWhenLessScratchWasLentThanNeeded) {
  const Matrix logits(1, 100);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  SamplingPlan plan;
  SampledToken sampled;
  EXPECT_DEATH(cpu->Sample(logits.View(), {&plan, 1}, {&sampled, 1}), "scratch memory, got 0");
}

}  // namespace
}  // namespace nibble
