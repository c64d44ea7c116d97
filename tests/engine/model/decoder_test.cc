#include "engine/model/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/status.h"
#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

using testing::Generate;
using ::testing::HasSubstr;
using testing::LoadedModel;
using testing::LoadOrDie;
using testing::Logprobs;
using testing::MakeSequence;
using testing::Step;
using testing::TestBackend;
using testing::TestSequence;

const std::vector<int32_t> kStory = {1, 403, 407, 261, 378};

LoadedModel Stories(int num_threads = 1, const StepLimits& limits = {}, ModelOptions options = {}) {
  return LoadOrDie(testing::GoldenPath("models/stories260k"), options,
                   TestBackend("cpu", num_threads), limits);
}

// Everything that sampling reports, to the last bit.
std::vector<std::vector<float>> Bits(const TestSequence& sequence) {
  std::vector<std::vector<float>> all;
  for (const SampledToken& sampled : sequence.sampled) {
    std::vector<float>& row = all.emplace_back();
    row = {static_cast<float>(sampled.token), sampled.logprob};
    for (const TokenLogprob& top : sampled.top) {
      row.insert(row.end(), {static_cast<float>(top.token), top.logprob});
    }
  }
  return all;
}

class DecoderGolden : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Backends, DecoderGolden, ::testing::Values("reference", "cpu"));

TEST_P(DecoderGolden, GreedyIdsEqualTransformersUntilATie) {
  const auto golden = testing::ReadGolden("model/decoder.json");
  for (simdjson::dom::element golden_case : golden->root["cases"].get_array()) {
    const std::string name = testing::Text(golden_case["model"]);
    const LoadedModel model = LoadOrDie(testing::GoldenPath("models/" + name),
                                        testing::FormOf(golden_case), TestBackend(GetParam()));
    const std::vector<int32_t> prompt = testing::Ids(golden_case["prompt_ids"]);
    const std::vector<int32_t> want = testing::Ids(golden_case["ids"]);
    const std::vector<float> gaps = testing::Floats(golden_case["gaps"]);
    const TestSequence got = Generate(model.model.get(), prompt, static_cast<int64_t>(want.size()));
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(got.sampled[i].token, want[i]) << name << " token " << i << " " << golden_case;
      if (gaps[i] < 0.01f) break;  // either answer is right, and the rest follows from it
    }
  }
}

TEST_P(DecoderGolden, LogProbabilitiesEqualTransformers) {
  const auto golden = testing::ReadGolden("model/decoder.json");
  for (simdjson::dom::element golden_case : golden->root["cases"].get_array()) {
    const std::string name = testing::Text(golden_case["model"]);
    const LoadedModel model = LoadOrDie(testing::GoldenPath("models/" + name),
                                        testing::FormOf(golden_case), TestBackend(GetParam()));
    std::vector<int32_t> tokens = testing::Ids(golden_case["prompt_ids"]);
    const std::vector<int32_t> generated = testing::Ids(golden_case["ids"]);
    tokens.insert(tokens.end(), generated.begin(), generated.end());
    const std::vector<float> want = testing::Floats(golden_case["logprobs"]);
    const std::vector<float> got = Logprobs(model.model.get(), tokens);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      // Logits of up to 20 carry fp32 rounding of about 20 · 2^-24 per layer on either side, grown
      // by a few through the layers; the golden is rounded to 5 decimals.
      EXPECT_NEAR(got[i], want[i], 1e-4) << name << " position " << i << " " << golden_case;
    }
  }
}

TEST(Decoder, TellsThePublishedStory) {
  const auto golden = testing::ReadGolden("model/decoder.json");
  const std::vector<int32_t> want = testing::Ids(golden->root["published"]);
  const LoadedModel model = Stories(1, {}, {.weights = WeightFormat::kBf16});
  TestSequence got = Generate(model.model.get(), kStory, static_cast<int64_t>(want.size()));
  got.tokens.erase(got.tokens.begin(), got.tokens.begin() + 5);
  EXPECT_EQ(got.tokens, want);
}

TEST(Decoder, ChunkedPrefillEqualsAllAtOnceBitForBit) {
  const LoadedModel model = Stories();
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 77; ++i) prompt.push_back((i * 37 + 11) % 512);
  const auto whole = Bits(Generate(model.model.get(), prompt, 4, 512, 20));
  for (const int64_t chunk : {1, 2, 7, 16, 31, 76}) {
    EXPECT_EQ(Bits(Generate(model.model.get(), prompt, 4, chunk, 20)), whole) << chunk;
  }
}

TEST(Decoder, ABatchEqualsEachAloneBitForBit) {
  const LoadedModel model = Stories();
  std::vector<TestSequence> batch;
  std::vector<TestSequence*> together;
  for (int32_t i = 0; i < 9; ++i) {
    std::vector<int32_t> prompt = kStory;
    prompt.resize(static_cast<size_t>(3 + 5 * i), 400 + i);
    // Pages in an order of their own, so that nothing relies on neighbours.
    TestSequence sequence = MakeSequence(prompt, 80, 5 * (8 - i));
    std::reverse(sequence.pages.begin(), sequence.pages.end());
    batch.push_back(sequence);
  }
  for (TestSequence& sequence : batch) together.push_back(&sequence);
  // Chunks of 8 rows: some sequences are still reading their prompt while others generate.
  for (int i = 0; i < 20; ++i) Step(model.model.get(), together, 8, 20);
  for (const TestSequence& sequence : batch) {
    const auto generated = static_cast<int64_t>(sequence.sampled.size());
    const std::vector<int32_t> prompt(sequence.tokens.begin(), sequence.tokens.end() - generated);
    EXPECT_EQ(Bits(Generate(model.model.get(), prompt, generated, 512, 20)), Bits(sequence))
        << prompt.size();
  }
}

TEST(Decoder, ThreadsDoNotChangeABit) {
  const auto one = Bits(Generate(Stories(1).model.get(), kStory, 8, 512, 20));
  for (const int threads : {2, 3}) {
    EXPECT_EQ(Bits(Generate(Stories(threads).model.get(), kStory, 8, 512, 20)), one) << threads;
  }
}

TEST(Decoder, SamplesMoreRowsThanTheLogitsHoldInSlices) {
  std::vector<int32_t> tokens = kStory;
  tokens.insert(tokens.end(), {432, 383, 286, 261, 376, 298});
  const std::vector<float> whole = Logprobs(Stories().model.get(), tokens);
  for (const int64_t logit_rows : {1, 2, 3, 7}) {
    const LoadedModel model = Stories(1, {.max_logit_rows = logit_rows});
    EXPECT_EQ(Logprobs(model.model.get(), tokens), whole) << logit_rows;
  }
}

TEST(Decoder, SeveralPlansMaySampleTheSameRow) {
  const LoadedModel model = Stories();
  const TestSequence sequence = MakeSequence(kStory, 16);
  DecodeStep step;
  step.tokens = kStory;
  step.sequences = {{0, 5, 0, sequence.pages.data()}};
  for (const int32_t row : {0, 4, 4, 4}) {
    SamplingPlan plan;
    plan.row = row;
    plan.num_logprobs = 1;
    step.plans.push_back(plan);
  }
  ASSERT_TRUE(model->Decode(&step).ok());
  ASSERT_EQ(step.sampled.size(), 4u);
  EXPECT_EQ(step.sampled[1].token, step.sampled[2].token);
  EXPECT_EQ(step.sampled[1].logprob, step.sampled[3].logprob);
  EXPECT_EQ(step.plans[3].row, 4) << "the caller's plans are not touched";
  EXPECT_NE(step.sampled[0].logprob, step.sampled[1].logprob);
}

TEST(Decoder, KeepsTheMemoryOfEarlierSamples) {
  const LoadedModel model = Stories();
  const TestSequence sequence = MakeSequence(kStory, 16);
  DecodeStep step;
  step.tokens = kStory;
  step.sequences = {{0, 5, 0, sequence.pages.data()}};
  step.sampled.resize(8);
  ASSERT_TRUE(model->Decode(&step).ok());
  EXPECT_EQ(step.sampled.size(), 8u);
}

TEST(Decoder, NeverSamplesAtOrAboveTheVocabularyLimit) {
  const LoadedModel model = Stories();
  TestSequence sequence = MakeSequence(kStory, 16);
  DecodeStep step;
  step.tokens = kStory;
  step.sequences = {{0, 5, 0, sequence.pages.data()}};
  SamplingPlan plan;
  plan.row = 4;
  plan.vocab_limit = 300;  // the best token of all is 432
  step.plans = {plan};
  ASSERT_TRUE(model->Decode(&step).ok());
  EXPECT_LT(step.sampled[0].token, 300);
}

TEST(Decoder, CountsItsMatrixProductsByForm) {
  const LoadedModel model = Stories();
  TestSequence sequence = MakeSequence(kStory, 16);
  Step(model.model.get(), {&sequence}, 3);  // a chunk of a prompt: no head
  EXPECT_EQ(model.GemmCalls(WeightFormat::kNf4), 7 * 5);
  EXPECT_EQ(model.GemmCalls(WeightFormat::kF16), 0);
  Step(model.model.get(), {&sequence}, 3);
  EXPECT_EQ(model.GemmCalls(WeightFormat::kNf4), 2 * 7 * 5);
  EXPECT_EQ(model.GemmCalls(WeightFormat::kF16), 1);
  EXPECT_EQ(model.GemmCalls(WeightFormat::kBf16), 0);
}

TEST(Decoder, CannotEmbed) {
  const LoadedModel model = Stories();
  EXPECT_TRUE(model->can_generate());
  EXPECT_FALSE(model->can_embed());
  EncodeStep step;
  const absl::Status status = model->Encode(&step);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "MODEL_CANNOT_EMBED");
}

TEST(DecoderCheck, RefusesWhatItsEquationsDoNotSay) {
  ModelConfig good;
  good.num_heads = 4;
  good.num_kv_heads = 2;
  good.head_dim = 16;
  EXPECT_TRUE(Decoder::Check(good).ok());

  ModelConfig config = good;
  config.activation = Activation::kGelu;
  EXPECT_EQ(Decoder::Check(config).code(), absl::StatusCode::kUnimplemented);
  config = good;
  config.num_kv_heads = 3;
  EXPECT_EQ(Decoder::Check(config).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Decoder::Check(config).message()),
              HasSubstr("4 heads cannot share 3 key-value heads"));
  config = good;
  config.head_dim = 15;
  EXPECT_EQ(Decoder::Check(config).code(), absl::StatusCode::kFailedPrecondition);
  config = good;
  config.rope.freq_divisors = {1, 2};
  EXPECT_EQ(Decoder::Check(config).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace nibble
