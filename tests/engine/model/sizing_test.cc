#include "engine/model/sizing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/status.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture_name = "llama";
  config.hidden = 64;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.ffn = 160;
  config.vocab = 512;
  config.max_positions = 2048;
  return config;
}

// K and V, 2 heads of 16, 2 bytes, 2 layers, 16 slots.
constexpr int64_t kPageBytes = 2 * 2 * 16 * 2 * 2 * 16;

TEST(ResolveOptions, FillsInTheContractsDefaults) {
  ModelConfig config = SmallConfig();
  EXPECT_EQ(ResolveOptions({}, config, nullptr)->weights, WeightFormat::kNf4);
  EXPECT_EQ(ResolveOptions({}, config, nullptr)->head, WeightFormat::kBf16);
  EXPECT_EQ(ResolveOptions({}, config, nullptr)->max_context, 2048);
  EXPECT_EQ(ResolveOptions({}, config, nullptr)->kv_dtype, DType::kF16);
  config.dtype = DType::kBF16;
  EXPECT_EQ(ResolveOptions({}, config, nullptr)->kv_dtype, DType::kBF16);
  EXPECT_EQ(ResolveOptions({.kv_dtype = DType::kF32}, config, nullptr)->kv_dtype, DType::kF32);
}

TEST(ResolveOptions, NeverGivesMoreContextThanTheModelHas) {
  EXPECT_EQ(ResolveOptions({.max_context = 100}, SmallConfig(), nullptr)->max_context, 100);
  EXPECT_EQ(ResolveOptions({.max_context = 99999}, SmallConfig(), nullptr)->max_context, 2048);
}

TEST(ResolveOptions, RefusesWhatIsOutOfRangeByField) {
  const std::pair<ModelOptions, std::string> wrong[] = {
      {{.weights = WeightFormat::kF16}, "options.weights"},
      {{.head = WeightFormat::kF16}, "options.head"},
      {{.head = WeightFormat::kFp4}, "options.head"},
      {{.group_size = 48}, "options.group_size"},
      {{.group_size = 0}, "options.group_size"},
      {{.max_context = -1}, "options.max_context"},
      {{.kv_bytes = -1}, "options.kv_bytes"},
      {{.skip_modules = std::vector<std::string>(1025, "mlp")}, "options.skip_modules"},
  };
  for (const auto& [options, field] : wrong) {
    const absl::Status status = ResolveOptions(options, SmallConfig(), nullptr).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_EQ(ReasonOf(status), "OPTION_OUT_OF_RANGE");
    EXPECT_EQ(FieldOf(status), field);
  }
}

TEST(ResolveOptions, FollowsAFileThatIsQuantized) {
  const TensorRef tensor = {.name = "w",
                            .shape = {64, 64},
                            .type = TensorType::kFP4,
                            .file = "model.safetensors",
                            .quantized = std::make_shared<QuantizedTensor>(
                                QuantizedTensor{.group_size = 128, .double_quant = false})};
  const auto resolved = ResolveOptions({}, SmallConfig(), &tensor);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->weights, WeightFormat::kFp4);
  EXPECT_EQ(resolved->group_size, 128);
  EXPECT_FALSE(resolved->double_quant);
  EXPECT_TRUE(ResolveOptions({.weights = WeightFormat::kFp4}, SmallConfig(), &tensor).ok());
  EXPECT_TRUE(ResolveOptions({.head = WeightFormat::kNf4}, SmallConfig(), &tensor).ok());
  const std::pair<ModelOptions, std::string> against[] = {
      {{.weights = WeightFormat::kNf4}, "options.weights"},
      {{.weights = WeightFormat::kBf16}, "options.weights"},
      {{.skip_modules = {"lm_head"}}, "options.skip_modules"},
  };
  for (const auto& [options, field] : against) {
    const absl::Status status = ResolveOptions(options, SmallConfig(), &tensor).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_EQ(FieldOf(status), field);
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors is quantized already"));
  }
}

TEST(CheckDimensions, RefusesZeroAndAbsurdDimensionsByName) {
  EXPECT_TRUE(CheckDimensions(SmallConfig()).ok());
  ModelConfig config = SmallConfig();
  config.ffn = 0;
  EXPECT_THAT(std::string(CheckDimensions(config).message()),
              HasSubstr("intermediate_size is 0, it must be from 1 to 2147483647"));
  config = SmallConfig();
  config.max_positions = int64_t{1} << 40;
  EXPECT_EQ(CheckDimensions(config).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(CheckDimensions(config).message()), HasSubstr("max_position_embeddings"));
}

struct Sized {
  absl::StatusOr<KvCache> kv;
  ModelOptions options;
};

Sized Size(ModelOptions options, int64_t others_bytes, int64_t free_bytes) {
  Sized sized{absl::InternalError(""), *ResolveOptions(options, SmallConfig(), nullptr)};
  MemoryPlan others;
  others.items.push_back({MemoryKind::kWeights, "everything else", others_bytes});
  sized.kv = SizeKvCache(SmallConfig(), others, free_bytes, &sized.options);
  return sized;
}

TEST(SizeKvCache, HasRoomForTheDefaultNumberOfPositions) {
  const Sized sized = Size({}, 1000, int64_t{1} << 30);
  EXPECT_EQ(sized.kv->PageBytes(), kPageBytes);
  EXPECT_EQ(sized.kv->num_pages, kDefaultKvPositions / kPageSlots);
  EXPECT_EQ(sized.options.kv_bytes, sized.kv->Bytes());
}

TEST(SizeKvCache, ShrinksToWhatIsFree) {
  const Sized sized = Size({}, 1000, 1000 + 200 * kPageBytes + kPageBytes / 2);
  EXPECT_EQ(sized.kv->num_pages, 200);
  EXPECT_EQ(sized.options.max_context, 2048);
}

TEST(SizeKvCache, HoldsOneContextAtLeastOrSaysWhatToChange) {
  EXPECT_TRUE(Size({}, 1000, 1000 + 128 * kPageBytes).kv.ok());
  const absl::Status status = Size({}, 1000, 1000 + 127 * kPageBytes).kv.status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "OUT_OF_MEMORY_BUDGET");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("one context of 2048 positions takes 0.5 MB"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("a max_context of at most 2032"));
}

TEST(SizeKvCache, RefusesWhenNothingIsLeftBesideTheWeights) {
  const absl::Status status = Size({}, 1000, 500).kv.status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("; give it more memory"));
}

TEST(SizeKvCache, TakesAnExplicitSizeAsItIsAndLowersTheContextToIt) {
  const Sized sized = Size({.kv_bytes = 3 * kPageBytes + 1}, 1000, 0);
  EXPECT_EQ(sized.kv->num_pages, 3);
  EXPECT_EQ(sized.options.max_context, 48);
  EXPECT_EQ(sized.options.kv_bytes, 3 * kPageBytes);
}

TEST(SizeKvCache, RefusesLessThanOnePage) {
  const absl::Status status = Size({.kv_bytes = kPageBytes - 1}, 0, int64_t{1} << 30).kv.status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "options.kv_bytes");
}

}  // namespace
}  // namespace nibble
