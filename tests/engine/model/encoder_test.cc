#include "engine/model/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/status.h"
#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

using testing::Encode;
using testing::LoadedModel;
using testing::LoadOrDie;
using testing::TestBackend;

LoadedModel TinyBert(const StepLimits& limits = {}, int num_threads = 1) {
  return LoadOrDie(testing::GoldenPath("models/tiny_bert"), {}, TestBackend("cpu", num_threads),
                   limits);
}

const std::vector<std::vector<int32_t>> kInputs = {
    {2, 3}, {2, 17, 3}, {2, 40, 41, 42, 200, 237, 5, 3}, {2, 9, 9, 9, 9, 3}};

class EncoderGolden : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Backends, EncoderGolden, ::testing::Values("reference", "cpu"));

TEST_P(EncoderGolden, PooledRowsEqualTransformers) {
  const auto golden = testing::ReadGolden("model/encoder.json");
  for (simdjson::dom::element golden_case : golden->root["cases"].get_array()) {
    const LoadedModel model = LoadOrDie(testing::GoldenPath("models/tiny_bert"),
                                        testing::FormOf(golden_case), TestBackend(GetParam()));
    const std::string_view name = golden_case["pooling"];
    const Pooling pooling = name == "mean"  ? Pooling::kMean
                            : name == "cls" ? Pooling::kCls
                                            : Pooling::kLast;
    const std::vector<float> want = testing::Floats(golden_case["values"]);
    const std::vector<float> got =
        Encode(model.model.get(), {testing::Ids(golden_case["ids"])}, pooling, false)[0];
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      // Values of up to 3 out of two layers, each a few roundings of 2^-24 of that on either side;
      // the golden is rounded to 5 decimals.
      EXPECT_NEAR(got[i], want[i], 3e-5) << i << " " << golden_case;
    }
  }
}

TEST(Encoder, ABatchEqualsEachAloneBitForBit) {
  const LoadedModel model = TinyBert();
  const auto together = Encode(model.model.get(), kInputs, Pooling::kMean, true);
  for (size_t i = 0; i < kInputs.size(); ++i) {
    EXPECT_EQ(Encode(model.model.get(), {kInputs[i]}, Pooling::kMean, true)[0], together[i]) << i;
  }
}

TEST(Encoder, ThreadsDoNotChangeABit) {
  const auto one = Encode(TinyBert().model.get(), kInputs, Pooling::kMean, true);
  EXPECT_EQ(Encode(TinyBert({}, 3).model.get(), kInputs, Pooling::kMean, true), one);
}

TEST(Encoder, NormalizesAfterCuttingToTheDimensionsAsked) {
  const LoadedModel model = TinyBert();
  const std::vector<float> raw = Encode(model.model.get(), {kInputs[2]}, Pooling::kMean, false)[0];
  const std::vector<float> cut =
      Encode(model.model.get(), {kInputs[2]}, Pooling::kMean, true, 10)[0];
  ASSERT_EQ(raw.size(), 48u);
  ASSERT_EQ(cut.size(), 10u);
  double squares = 0;
  for (size_t i = 0; i < cut.size(); ++i) squares += static_cast<double>(raw[i] * raw[i]);
  for (size_t i = 0; i < cut.size(); ++i) {
    EXPECT_NEAR(cut[i], static_cast<double>(raw[i]) / std::sqrt(squares), 1e-6) << i;
  }
}

TEST(Encoder, AdmitsItsLongestInputWhateverTheStepLimits) {
  const LoadedModel model = TinyBert({.max_rows = 8, .max_sequences = 4});
  EXPECT_EQ(model->limits().max_rows, 64);
  EXPECT_EQ(model->max_context(), 64);
  std::vector<int32_t> longest(64, 20);
  EXPECT_EQ(Encode(model.model.get(), {longest}, Pooling::kCls, true)[0].size(), 48u);
}

TEST(Encoder, HasNoKvCacheAndCannotGenerate) {
  const LoadedModel model = TinyBert();
  EXPECT_EQ(model->kv_cache().num_pages, 0);
  EXPECT_EQ(model->plan().Total(MemoryKind::kKvCache), 0);
  EXPECT_TRUE(model->can_embed());
  EXPECT_FALSE(model->can_generate());
  DecodeStep step;
  const absl::Status status = model->Decode(&step);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "MODEL_CANNOT_GENERATE");
}

TEST(Encoder, CountsItsMatrixProducts) {
  const LoadedModel model = TinyBert();
  Encode(model.model.get(), kInputs, Pooling::kMean, true);
  EXPECT_EQ(model.GemmCalls(WeightFormat::kNf4), 6 * 2);
}

TEST(EncoderCheck, RefusesWhatItsEquationsDoNotSay) {
  ModelConfig good;
  good.hidden = 48;
  good.num_heads = 4;
  good.head_dim = 12;
  good.type_vocab = 2;
  good.activation = Activation::kGelu;
  EXPECT_TRUE(Encoder::Check(good).ok());
  ModelConfig config = good;
  config.activation = Activation::kSilu;
  EXPECT_EQ(Encoder::Check(config).code(), absl::StatusCode::kUnimplemented);
  config = good;
  config.head_dim = 16;
  EXPECT_EQ(Encoder::Check(config).code(), absl::StatusCode::kFailedPrecondition);
  config = good;
  config.type_vocab = 0;
  EXPECT_EQ(Encoder::Check(config).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace nibble
