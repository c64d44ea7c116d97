// Load options in; descriptions and memory out.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "engine/status.h"
#include "service/convert.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

absl::StatusOr<ModelOptions> Options(const std::string& text) {
  v1::LoadOptions proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return FromProto(proto, "cpu", Compute::kFp32);
}

TEST(ModelOptionsFromProto, AbsentIsTheDefault) {
  const absl::StatusOr<ModelOptions> options = Options("");
  ASSERT_TRUE(options.ok());
  EXPECT_FALSE(options->weights.has_value());
  EXPECT_EQ(options->head, WeightFormat::kBf16);
  EXPECT_EQ(options->group_size, 64);
  EXPECT_TRUE(options->double_quant);
  EXPECT_FALSE(options->kv_dtype.has_value());
  EXPECT_EQ(options->max_context, 0);
  EXPECT_EQ(options->kv_bytes, 0);
}

TEST(ModelOptionsFromProto, KeepsEveryField) {
  const absl::StatusOr<ModelOptions> options = Options(
      "weights: WEIGHT_FORMAT_BF16 group_size: 128 double_quant: false head: HEAD_FORMAT_INT8 "
      "compute: COMPUTE_FP32 kv_dtype: KV_DTYPE_FP32 device: 'cpu' max_context: 10 kv_bytes: -3");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->weights, WeightFormat::kBf16);
  EXPECT_EQ(options->head, WeightFormat::kInt8);
  EXPECT_EQ(options->group_size, 128);
  EXPECT_FALSE(options->double_quant);
  EXPECT_EQ(options->kv_dtype, DType::kF32);
  EXPECT_EQ(options->max_context, 10);
  EXPECT_EQ(options->kv_bytes, -3) << "ranges are the engine's";
}

TEST(ModelOptionsFromProto, NamesWhatIsNotInThisVersion) {
  for (const char* text : {"compute: COMPUTE_BF16", "compute: COMPUTE_INT8"}) {
    EXPECT_EQ(Options(text).status().code(), absl::StatusCode::kUnimplemented) << text;
    EXPECT_EQ(ReasonOf(Options(text).status()), "NOT_IN_THIS_VERSION");
  }
}

TEST(ModelOptionsFromProto, TakesTheServersOwnCompute) {
  v1::LoadOptions proto;
  proto.set_compute(v1::COMPUTE_BF16);
  EXPECT_TRUE(FromProto(proto, "cuda:0", Compute::kBf16).ok());
  proto.set_compute(v1::COMPUTE_AUTO);
  EXPECT_TRUE(FromProto(proto, "cuda:0", Compute::kBf16).ok());
  proto.set_compute(v1::COMPUTE_FP32);
  const absl::Status status = FromProto(proto, "cuda:0", Compute::kBf16).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(FieldOf(status), "options.compute");
  EXPECT_THAT(std::string{status.message()}, HasSubstr("fp32 beside this server's bf16"));
}

TEST(ModelOptionsFromProto, RefusesUnknownValues) {
  v1::LoadOptions weights, compute, kv, head;
  weights.set_weights(static_cast<v1::WeightFormat>(77));
  compute.set_compute(static_cast<v1::Compute>(77));
  kv.set_kv_dtype(static_cast<v1::KvDtype>(77));
  head.set_head(static_cast<v1::HeadFormat>(4));
  EXPECT_EQ(FieldOf(FromProto(weights, "cpu", Compute::kFp32).status()), "options.weights");
  EXPECT_EQ(FieldOf(FromProto(compute, "cpu", Compute::kFp32).status()), "options.compute");
  EXPECT_EQ(FieldOf(FromProto(kv, "cpu", Compute::kFp32).status()), "options.kv_dtype");
  EXPECT_EQ(FieldOf(FromProto(head, "cpu", Compute::kFp32).status()), "options.head");
  EXPECT_EQ(Options("device: 'cuda:0'").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Options("device: 'auto'").ok());
}

ModelDescription Bert() {
  ModelDescription model;
  model.name = "m";
  model.source = "/secret/place/bert/";
  model.config.architecture_name = "BertModel";
  model.config.hidden = 64;
  model.config.vocab = 100;
  model.config.embedding.present = true;
  model.config.embedding.pooling = Pooling::kCls;
  model.config.embedding.max_seq_length = 128;
  model.config.embedding.prompts = {{"query", "q: "}};
  model.options.weights = WeightFormat::kNf4;
  model.can_embed = true;
  model.max_context = 512;
  model.memory.items = {{MemoryKind::kWeights, "a", 10},
                        {MemoryKind::kWeights, "b", 5},
                        {MemoryKind::kTokenizer, "tokenizer", 3}};
  return model;
}

TEST(ModelToProto, TellsOnlyTheLastPartOfThePath) {
  v1::Model proto;
  ToProto(Bert(), &proto);
  EXPECT_EQ(proto.source(), "bert");
  EXPECT_THAT(proto.DebugString(), Not(HasSubstr("secret")));
}

TEST(ModelToProto, DescribesAnEmbeddingModel) {
  v1::Model proto;
  ToProto(Bert(), &proto);
  EXPECT_EQ(proto.state(), v1::MODEL_STATE_READY);
  EXPECT_EQ(proto.architecture(), "BertModel");
  EXPECT_EQ(proto.weights(), v1::WEIGHT_FORMAT_NF4);
  EXPECT_EQ(proto.group_size(), 64);
  EXPECT_TRUE(proto.double_quant());
  EXPECT_EQ(proto.head(), v1::HEAD_FORMAT_BF16);
  EXPECT_EQ(proto.kv_dtype(), v1::KV_DTYPE_UNSPECIFIED);
  EXPECT_EQ(proto.dimensions(), 64);
  EXPECT_EQ(proto.max_seq_length(), 128);
  EXPECT_EQ(proto.default_pooling(), v1::POOLING_CLS);
  ASSERT_EQ(proto.prompt_names_size(), 1);
  EXPECT_EQ(proto.prompt_names(0), "query");
  ASSERT_EQ(proto.memory_size(), 2);
  EXPECT_EQ(proto.memory(0).kind(), v1::MEMORY_KIND_WEIGHTS);
  EXPECT_EQ(proto.memory(0).bytes(), 15);
  EXPECT_EQ(proto.memory(1).kind(), v1::MEMORY_KIND_TOKENIZER);
  EXPECT_EQ(proto.memory_bytes(), 18);
}

TEST(ModelToProto, SixteenBitWeightsHaveNoGroups) {
  ModelDescription model = Bert();
  model.options.weights = WeightFormat::kF16;
  model.kv_tokens = 16;
  model.options.kv_dtype = DType::kF16;
  v1::Model proto;
  ToProto(model, &proto);
  EXPECT_EQ(proto.weights(), v1::WEIGHT_FORMAT_BF16);
  EXPECT_EQ(proto.group_size(), 0);
  EXPECT_FALSE(proto.double_quant());
  EXPECT_EQ(proto.kv_dtype(), v1::KV_DTYPE_FP16);
}

TEST(ModelToProto, TellsTheHeadsFormAndItsGroups) {
  ModelDescription model = Bert();
  model.options.weights = WeightFormat::kBf16;
  model.options.head = WeightFormat::kInt8;
  v1::Model proto;
  ToProto(model, &proto);
  EXPECT_EQ(proto.head(), v1::HEAD_FORMAT_INT8);
  EXPECT_EQ(proto.group_size(), 0);
  model.options.head = WeightFormat::kNf4;
  ToProto(model, &proto);
  EXPECT_EQ(proto.head(), v1::HEAD_FORMAT_NF4);
  EXPECT_EQ(proto.group_size(), 64);
  EXPECT_TRUE(proto.double_quant());
}

TEST(GetMemoryToProto, TheEntriesSumToWhatIsUsed) {
  EngineStats stats;
  stats.device = "cpu";
  stats.memory_budget_bytes = 1000;
  stats.memory = {{"", MemoryKind::kOther, 5}, {"m", MemoryKind::kKvCache, 70}};
  v1::GetMemoryResponse proto;
  ToProto(stats, &proto);
  ASSERT_EQ(proto.devices_size(), 1);
  EXPECT_EQ(proto.devices(0).budget_bytes(), 1000);
  EXPECT_EQ(proto.devices(0).used_bytes(), 75);
  EXPECT_EQ(proto.devices(0).entries(1).model(), "m");
  EXPECT_EQ(proto.devices(0).entries(1).kind(), v1::MEMORY_KIND_KV_CACHE);
  EXPECT_GT(proto.process().resident_bytes(), 0);
  EXPECT_GT(proto.process().anonymous_bytes(), 0);
}

}  // namespace
}  // namespace nibble
