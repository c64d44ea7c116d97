// Absent fields take the model's defaults, wrong ones are refused by their path.
#include "engine/sampling/params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "engine/status.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocabulary = 100;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

ResolvedSampling Resolve(const SamplingParams& request, const GenerationDefaults& defaults = {}) {
  const auto resolved = ResolveSampling(request, defaults, RequestCaps(), kVocabulary);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return resolved.value_or(ResolvedSampling());
}

void ExpectError(const absl::Status& status, const std::string& reason, const std::string& field) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(ReasonOf(status), reason) << status;
  EXPECT_EQ(FieldOf(status), field) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(field));
}

absl::Status SamplingError(const SamplingParams& request) {
  return ResolveSampling(request, {}, RequestCaps(), kVocabulary).status();
}

TEST(ResolveSampling, IsGreedyAndNeutralWithoutRequestAndFile) {
  const ResolvedSampling resolved = Resolve({});
  EXPECT_EQ(resolved.plan.temperature, 0);
  EXPECT_EQ(resolved.plan.top_k, 0);
  EXPECT_EQ(resolved.plan.top_p, 1);
  EXPECT_EQ(resolved.plan.min_p, 0);
  EXPECT_EQ(resolved.plan.repetition_penalty, 1);
  EXPECT_EQ(resolved.plan.frequency_penalty, 0);
  EXPECT_EQ(resolved.plan.presence_penalty, 0);
  EXPECT_EQ(resolved.plan.vocab_limit, kVocabulary);
  EXPECT_TRUE(resolved.bias.empty());
  EXPECT_FALSE(resolved.penalized);
}

GenerationDefaults FullDefaults() {
  GenerationDefaults defaults;
  defaults.do_sample = true;
  defaults.temperature = 0.6f;
  defaults.top_k = 20;
  defaults.top_p = 0.95f;
  defaults.min_p = 0.05f;
  defaults.repetition_penalty = 1.1f;
  return defaults;
}

TEST(ResolveSampling, TakesTheFilesValuesWhereTheRequestHasNone) {
  const ResolvedSampling resolved = Resolve({}, FullDefaults());
  EXPECT_EQ(resolved.plan.temperature, 0.6f);
  EXPECT_EQ(resolved.plan.top_k, 20);
  EXPECT_EQ(resolved.plan.top_p, 0.95f);
  EXPECT_EQ(resolved.plan.min_p, 0.05f);
  EXPECT_EQ(resolved.plan.repetition_penalty, 1.1f);
  EXPECT_TRUE(resolved.penalized);
}

TEST(ResolveSampling, PrefersTheRequestsValues) {
  SamplingParams request;
  request.temperature = 1.5f;
  request.top_k = 0;
  request.top_p = 1;
  request.min_p = 0;
  request.repetition_penalty = 1;
  const ResolvedSampling resolved = Resolve(request, FullDefaults());
  EXPECT_EQ(resolved.plan.temperature, 1.5f);
  EXPECT_EQ(resolved.plan.top_k, 0);
  EXPECT_EQ(resolved.plan.top_p, 1);
  EXPECT_EQ(resolved.plan.min_p, 0);
  EXPECT_EQ(resolved.plan.repetition_penalty, 1);
  EXPECT_FALSE(resolved.penalized);
}

TEST(ResolveSampling, IsGreedyWhenTheFileDoesNotSample) {
  GenerationDefaults defaults = FullDefaults();
  defaults.do_sample = false;
  EXPECT_EQ(Resolve({}, defaults).plan.temperature, 0);
}

TEST(ResolveSampling, SamplesWhenTheRequestSetsATemperatureWhateverTheFileSays) {
  GenerationDefaults defaults = FullDefaults();
  defaults.do_sample = false;
  SamplingParams request;
  request.temperature = 0.8f;
  EXPECT_EQ(Resolve(request, defaults).plan.temperature, 0.8f);
  EXPECT_EQ(Resolve(request, defaults).plan.top_k, 20);
}

TEST(ResolveSampling, SamplesAtOneWhenTheFileNamesNoTemperature) {
  GenerationDefaults defaults;
  defaults.do_sample = true;
  EXPECT_EQ(Resolve({}, defaults).plan.temperature, 1);
}

TEST(ResolveSampling, IsGreedyAtTemperatureZeroAndNextToIt) {
  SamplingParams request;
  for (const float temperature : {0.0f, -0.0f, 1e-30f, 9e-6f}) {
    request.temperature = temperature;
    EXPECT_EQ(Resolve(request, FullDefaults()).plan.temperature, 0) << temperature;
  }
}

TEST(ResolveSampling, IgnoresValuesOfTheFileThatAreOutOfRange) {
  GenerationDefaults defaults;
  defaults.do_sample = true;
  defaults.temperature = kNan;
  defaults.top_k = -1;
  defaults.top_p = 0;
  defaults.min_p = 2;
  defaults.repetition_penalty = 0;
  const SamplingPlan plan = Resolve({}, defaults).plan;
  EXPECT_EQ(plan.temperature, 1);
  EXPECT_EQ(plan.top_k, 0);
  EXPECT_EQ(plan.top_p, 1);
  EXPECT_EQ(plan.min_p, 0);
  EXPECT_EQ(plan.repetition_penalty, 1);
}

TEST(ResolveSampling, KeepsTheBiasByToken) {
  SamplingParams request;
  request.logit_bias = {{99, -kInf}, {0, 2.5f}};
  const std::vector<TokenBias> bias = Resolve(request).bias;
  ASSERT_EQ(bias.size(), 2u);
  EXPECT_EQ(bias[0].token, 0);
  EXPECT_EQ(bias[0].bias, 2.5f);
  EXPECT_EQ(bias[1].token, 99);
  EXPECT_EQ(bias[1].bias, -kInf);
}

TEST(ResolveSampling, CountsOnlyForPenaltiesThatDoSomething) {
  SamplingParams frequency;
  frequency.frequency_penalty = -0.5f;
  EXPECT_TRUE(Resolve(frequency).penalized);
  SamplingParams presence;
  presence.presence_penalty = 2;
  EXPECT_TRUE(Resolve(presence).penalized);
  SamplingParams neutral;
  neutral.frequency_penalty = 0;
  neutral.presence_penalty = 0;
  EXPECT_FALSE(Resolve(neutral).penalized);
}

TEST(ResolveSampling, RefusesValuesOutOfRangeNanAndInfinity) {
  using Field = std::optional<float> SamplingParams::*;
  struct Case {
    const char* name;
    Field field;
    std::vector<float> bad;
  };
  const std::vector<Case> cases = {
      {"sampling.temperature", &SamplingParams::temperature, {-0.1f, -kInf, kInf, kNan}},
      {"sampling.top_p", &SamplingParams::top_p, {0, -1, 1.01f, kInf, kNan}},
      {"sampling.min_p", &SamplingParams::min_p, {-0.1f, 1.1f, kInf, kNan}},
      {"sampling.repetition_penalty",
       &SamplingParams::repetition_penalty,
       {0, -1, 1e-4f, 1001, kInf, kNan}},
      {"sampling.frequency_penalty",
       &SamplingParams::frequency_penalty,
       {-2.1f, 2.1f, kInf, -kInf, kNan}},
      {"sampling.presence_penalty",
       &SamplingParams::presence_penalty,
       {-2.1f, 2.1f, kInf, -kInf, kNan}},
  };
  for (const Case& c : cases) {
    for (const float value : c.bad) {
      SamplingParams request;
      request.*c.field = value;
      ExpectError(SamplingError(request), "VALUE_OUT_OF_RANGE", c.name);
    }
  }
  SamplingParams request;
  request.top_k = -1;
  ExpectError(SamplingError(request), "VALUE_OUT_OF_RANGE", "sampling.top_k");
}

TEST(ResolveSampling, SaysWhatItGotAndWanted) {
  SamplingParams request;
  request.top_p = 2;
  EXPECT_EQ(SamplingError(request).message(), "sampling.top_p is 2, wanted in (0, 1]");
}

TEST(ResolveSampling, RefusesBadBias) {
  SamplingParams request;
  for (const auto& [token, reason] : std::map<int32_t, std::string>{
           {-1, "TOKEN_OUT_OF_RANGE"}, {kVocabulary, "TOKEN_OUT_OF_RANGE"}}) {
    request.logit_bias = {{token, 1.0f}};
    ExpectError(SamplingError(request), reason, "sampling.logit_bias");
  }
  for (const float addend : {kInf, kNan}) {
    request.logit_bias = {{1, addend}};
    ExpectError(SamplingError(request), "VALUE_OUT_OF_RANGE", "sampling.logit_bias");
  }
  request.logit_bias.clear();
  for (int32_t token = 0; token < kVocabulary; ++token) request.logit_bias[token] = -kInf;
  ExpectError(SamplingError(request), "VALUE_OUT_OF_RANGE", "sampling.logit_bias");
  request.logit_bias.erase(7);
  EXPECT_TRUE(SamplingError(request).ok());
  for (int32_t token = 0; token < 1025; ++token) request.logit_bias[token] = 1;
  ExpectError(SamplingError(request), "OVER_CAP", "sampling.logit_bias");
}

TEST(ResolveSampling, RefusesAWrongNumberOfAnswers) {
  SamplingParams request;
  for (const int32_t n : {0, -1}) {
    request.n = n;
    ExpectError(SamplingError(request), "VALUE_OUT_OF_RANGE", "sampling.n");
  }
  request.n = 1000;
  ExpectError(SamplingError(request), "OVER_CAP", "sampling.n");
  request.n = 16;
  EXPECT_TRUE(SamplingError(request).ok());
}

absl::Status StoppingError(const StoppingParams& stopping, RequestCaps caps = {}) {
  return CheckStopping(stopping, caps, kVocabulary);
}

TEST(CheckStopping, AcceptsWhatIsInRange) {
  EXPECT_TRUE(StoppingError({}).ok());
  StoppingParams stopping;
  stopping.max_tokens = 5;
  stopping.min_tokens = 5;
  stopping.stop = std::vector<std::string>(16, std::string(256, 'x'));
  stopping.stop_token_ids = {0, kVocabulary - 1};
  EXPECT_TRUE(StoppingError(stopping).ok());
}

TEST(CheckStopping, RefusesWrongTokenLimits) {
  StoppingParams stopping;
  for (const int32_t max_tokens : {0, -1, std::numeric_limits<int32_t>::min()}) {
    stopping.max_tokens = max_tokens;
    ExpectError(StoppingError(stopping), "VALUE_OUT_OF_RANGE", "stopping.max_tokens");
  }
  stopping.max_tokens = 11;
  RequestCaps caps;
  caps.max_output_tokens = 10;
  ExpectError(StoppingError(stopping, caps), "OVER_CAP", "stopping.max_tokens");
  stopping.min_tokens = 12;
  ExpectError(StoppingError(stopping), "VALUE_OUT_OF_RANGE", "stopping.min_tokens");
  stopping.min_tokens = -1;
  ExpectError(StoppingError(stopping), "VALUE_OUT_OF_RANGE", "stopping.min_tokens");
}

TEST(CheckStopping, RefusesWrongStopStrings) {
  StoppingParams stopping;
  stopping.stop = {"fine", ""};
  ExpectError(StoppingError(stopping), "EMPTY_STOP_STRING", "stopping.stop[1]");
  stopping.stop = {"\xff"};
  ExpectError(StoppingError(stopping), "INVALID_UTF8", "stopping.stop[0]");
  stopping.stop = {std::string(257, 'x')};
  ExpectError(StoppingError(stopping), "OVER_CAP", "stopping.stop[0]");
  stopping.stop = std::vector<std::string>(1000, "x");
  ExpectError(StoppingError(stopping), "OVER_CAP", "stopping.stop");
}

TEST(CheckStopping, RefusesWrongStopTokens) {
  StoppingParams stopping;
  stopping.stop_token_ids = {1, kVocabulary};
  ExpectError(StoppingError(stopping), "TOKEN_OUT_OF_RANGE", "stopping.stop_token_ids[1]");
  stopping.stop_token_ids = {-1};
  ExpectError(StoppingError(stopping), "TOKEN_OUT_OF_RANGE", "stopping.stop_token_ids[0]");
  stopping.stop_token_ids = std::vector<int32_t>(257, 1);
  ExpectError(StoppingError(stopping), "OVER_CAP", "stopping.stop_token_ids");
}

TEST(CheckOutput, BoundsLogprobs) {
  OutputParams output;
  EXPECT_TRUE(CheckOutput(output, {}).ok());
  output.logprobs = 20;
  output.prompt_logprobs = 0;
  EXPECT_TRUE(CheckOutput(output, {}).ok());
  output.logprobs = 21;
  ExpectError(CheckOutput(output, {}), "OVER_CAP", "output.logprobs");
  output.logprobs = -2;
  ExpectError(CheckOutput(output, {}), "VALUE_OUT_OF_RANGE", "output.logprobs");
  output.logprobs = 0;
  output.prompt_logprobs = 1000;
  ExpectError(CheckOutput(output, {}), "OVER_CAP", "output.prompt_logprobs");
}

}  // namespace
}  // namespace nibble
