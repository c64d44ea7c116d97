// Checkpoints that transformers and bitsandbytes saved (tests/golden/bnb) run as their weights say:
// the oracle is transformers in fp32 on what bitsandbytes dequantizes, for INT8 bitsandbytes itself
// row by row. And what is packed is the file's own bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/quantize/quantize.h"
#include "tests/engine/model/testing.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using testing::Cosine;
using testing::Encode;
using testing::Generate;
using testing::GoldenPath;
using testing::LoadedModel;
using testing::LoadOrDie;
using testing::TestBackend;
using testing::TestSequence;

// log softmax of the oracle's logits.
std::vector<float> LogSoftmax(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  std::vector<float> out;
  for (const float logit : logits) {
    out.push_back(static_cast<float>(static_cast<double>(logit) - largest - std::log(sum)));
  }
  return out;
}

LoadedModel Load(const std::string& path, const std::string& backend) {
  return LoadOrDie(path, {.kv_dtype = DType::kF32}, TestBackend(backend, 2));
}

// 4 bits: fp32 sums in another order. INT8: the oracle rounds every layer's output to fp16 (2^-11
// of values of about 10) and multiplies by a constant that is 1.8e-5 larger than 1/127²; through
// two layers of seven matrices that is 14 · 2^-11 · 10, in the worst case all one way. And such a
// difference now and then moves an input's code by one, which is up to 6 / 127 (the threshold over
// the codes) times a weight of up to 0.5; four of them are allowed for.
double Tolerance(const std::string& model) {
  if (model.find("int8") == std::string::npos) return 1e-4;
  return 14 * 0x1p-11 * 10 + 4 * 6.0 / 127 * 0.5;
}

class BitsandbytesLlama : public ::testing::TestWithParam<std::string> {};

TEST_P(BitsandbytesLlama, SpeaksAsTransformersDoesOnBothBackends) {
  const std::string path = GoldenPath("bnb/" + GetParam());
  const auto golden = testing::ReadGolden("bnb/" + GetParam() + "/expected.json");
  const std::vector<int32_t> prompt = testing::Ids(golden->root["prompt_ids"]);
  const std::vector<int32_t> wanted = testing::Ids(golden->root["greedy_ids"]);
  const std::vector<float> logprobs = LogSoftmax(testing::Floats(golden->root["logits"]));
  ASSERT_EQ(wanted.size(), 24u);
  for (const char* backend : {"cpu", "reference"}) {
    const LoadedModel model = Load(path, backend);
    const TestSequence got = Generate(model.model.get(), prompt, 24, 512, 20);
    EXPECT_EQ(std::vector<int32_t>(got.tokens.begin() + static_cast<long>(prompt.size()),
                                   got.tokens.end()),
              wanted)
        << backend;
    double worst = 0;
    for (const auto& top : got.sampled[0].top) {
      worst = std::max(
          worst,
          std::fabs(static_cast<double>(top.logprob - logprobs[static_cast<size_t>(top.token)])));
    }
    EXPECT_LE(worst, Tolerance(GetParam())) << backend;
    RecordProperty(std::string("worst_") + backend, std::to_string(worst));
  }
}

TEST_P(BitsandbytesLlama, WrittenOutAgainItSaysTheSame) {
  const std::string path = GoldenPath("bnb/" + GetParam());
  const LoadedModel first = Load(path, "cpu");
  const testing::TempDir directory;
  const auto written =
      QuantizeCheckpoint(path, directory.File("again"), {.format = *first->options().weights},
                         [](int64_t, int64_t) {});
  ASSERT_TRUE(written.ok()) << written.status();
  const LoadedModel second = Load(directory.File("again"), "cpu");
  const std::vector<int32_t> prompt = {1, 87, 15, 200, 42, 131, 9};
  const TestSequence a = Generate(first.model.get(), prompt, 8, 512, 20);
  const TestSequence b = Generate(second.model.get(), prompt, 8, 512, 20);
  EXPECT_EQ(a.tokens, b.tokens);
  for (size_t i = 0; i < a.sampled.size(); ++i) {
    ASSERT_EQ(a.sampled[i].top.size(), b.sampled[i].top.size());
    for (size_t j = 0; j < a.sampled[i].top.size(); ++j) {
      EXPECT_EQ(a.sampled[i].top[j].logprob, b.sampled[i].top[j].logprob);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, BitsandbytesLlama,
                         ::testing::Values("nf4", "nf4_nested", "nf4_nested_sharded", "nf4_skip",
                                           "nf4_f16_storage", "nf4_f32_storage", "fp4",
                                           "fp4_nested_bf16_storage", "int8", "int8_outliers"),
                         [](const auto& named) { return named.param; });

class BitsandbytesBert : public ::testing::TestWithParam<std::string> {};

TEST_P(BitsandbytesBert, PointsWhereTransformersPoints) {
  const std::string path = GoldenPath("bnb/" + GetParam());
  const auto golden = testing::ReadGolden("bnb/" + GetParam() + "/expected.json");
  const LoadedModel model = Load(path, "cpu");
  std::vector<std::vector<int32_t>> inputs;
  for (const auto input : golden->root["inputs"].get_array()) {
    inputs.push_back(testing::Ids(input["ids"]));
  }
  const auto got = Encode(model.model.get(), inputs, Pooling::kMean, false);
  size_t i = 0;
  const bool int8 = GetParam().find("int8") != std::string::npos;
  for (const auto input : golden->root["inputs"].get_array()) {
    EXPECT_GE(Cosine(got[i++], testing::Floats(input["mean"])), int8 ? 0.9999 : 0.9999999);
  }
  EXPECT_EQ(i, 4u);
}

INSTANTIATE_TEST_SUITE_P(Goldens, BitsandbytesBert,
                         ::testing::Values("bert_nf4_nested", "bert_fp4", "bert_int8"),
                         [](const auto& named) { return named.param; });

TEST(Bitsandbytes, TheDescriptionTellsTheFilesForm) {
  const LoadedModel fp4 = Load(GoldenPath("bnb/fp4_nested_bf16_storage"), "cpu");
  EXPECT_EQ(fp4->options().weights, WeightFormat::kFp4);
  EXPECT_TRUE(fp4->options().double_quant);
  const LoadedModel plain = Load(GoldenPath("bnb/nf4"), "cpu");
  EXPECT_FALSE(plain->options().double_quant);
  Generate(plain.model.get(), {1, 2, 3}, 2);
  EXPECT_GT(plain.GemmCalls(WeightFormat::kNf4), 0);
  const LoadedModel int8 = Load(GoldenPath("bnb/int8"), "cpu");
  Generate(int8.model.get(), {1, 2, 3}, 2);
  EXPECT_GT(int8.GemmCalls(WeightFormat::kInt8), 0);
  EXPECT_EQ(int8.GemmCalls(WeightFormat::kNf4), 0);
}

TEST(Bitsandbytes, EveryFormOfAPlainCheckpointIsWhatQuantizingItFirstGives) {
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4, WeightFormat::kInt8}) {
    const testing::TempDir directory;
    ASSERT_TRUE(QuantizeCheckpoint(GoldenPath("models/stories260k"), directory.File("q"),
                                   {.format = format}, [](int64_t, int64_t) {})
                    .ok());
    const LoadedModel written = Load(directory.File("q"), "cpu");
    const LoadedModel loaded =
        LoadOrDie(GoldenPath("models/stories260k"), {.weights = format, .kv_dtype = DType::kF32},
                  TestBackend("cpu", 1));
    const std::vector<int32_t> prompt = {1, 403, 407, 261};
    EXPECT_EQ(Generate(written.model.get(), prompt, 40).tokens,
              Generate(loaded.model.get(), prompt, 40).tokens)
        << Name(format);
    EXPECT_EQ(written->plan().Total(MemoryKind::kWeights),
              loaded->plan().Total(MemoryKind::kWeights));
  }
}

TEST(Bitsandbytes, ARowOfInt8IsTheSameAloneAndInACrowd) {
  const LoadedModel model = Load(GoldenPath("bnb/int8_outliers"), "cpu");
  const TestSequence alone = Generate(model.model.get(), {7, 8, 9, 10}, 12, 512, 20);
  for (const int64_t chunk : {1, 2, 3}) {
    EXPECT_EQ(Generate(model.model.get(), {7, 8, 9, 10}, 12, chunk, 20).tokens, alone.tokens);
  }
}

TEST(Bitsandbytes, SkippedModulesKeepSixteenBits) {
  const LoadedModel model = LoadOrDie(GoldenPath("models/stories260k"),
                                      {.skip_modules = {"mlp", "layers.0"}}, TestBackend("cpu", 1));
  Generate(model.model.get(), {1, 403}, 1);
  const int64_t layers = model->config().num_layers;
  EXPECT_EQ(model.GemmCalls(WeightFormat::kNf4), 4 * (layers - 1));
  EXPECT_EQ(model.GemmCalls(WeightFormat::kF16), 4 + 3 * layers + 1) << "and the head";
}

}  // namespace
}  // namespace nibble
