// --model NAME=PATH[,option=value,...]
#include "service/model_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(ModelSpec, ReadsNamePathAndOptions) {
  const auto request = ParseModelSpec(
      "smol=/m/"
      "a=b.gguf,weights=bf16,head=nf4,group_size=128,double_quant=false,kv_dtype=fp32,max_context="
      "512,kv_"
      "bytes=1Mi");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->name, "smol");
  EXPECT_EQ(request->source, "/m/a=b.gguf");
  EXPECT_EQ(request->options.weights, WeightFormat::kBf16);
  EXPECT_EQ(request->options.head, WeightFormat::kNf4);
  EXPECT_EQ(request->options.group_size, 128);
  EXPECT_FALSE(request->options.double_quant);
  EXPECT_EQ(request->options.kv_dtype, DType::kF32);
  EXPECT_EQ(request->options.max_context, 512);
  EXPECT_EQ(request->options.kv_bytes, 1048576);
}

TEST(ModelFlags, TakeTheSameOptions) {
  ModelFlags flags;
  EXPECT_EQ(ToModelOptions(flags)->head, WeightFormat::kBf16);
  flags.head = "int8";
  EXPECT_EQ(ToModelOptions(flags)->head, WeightFormat::kInt8);
  flags.head = "four";
  EXPECT_THAT(std::string(ToModelOptions(flags).status().message()),
              testing::HasSubstr("head=four: want nf4, int8 or bf16"));
}

TEST(ModelSpec, NamesTheOptionThatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"nopath", "want NAME=PATH"},
      {"=x", "want NAME=PATH"},
      {"a=", "want NAME=PATH"},
      {"a=x,weights=int3", "weights=int3: want nf4, fp4, int8 or bf16"},
      {"a=x,head=fp4", "head=fp4: want nf4, int8 or bf16"},
      {"a=x,colour=red", "unknown option \"colour\""},
      {"a=x,weights", "\"weights\" has no value"},
      {"a=x,double_quant=1", "double_quant=1: want true or false"},
      {"a=x,kv_dtype=int8", "want fp16, bf16 or fp32"},
      {"a=x,group_size=many", "group_size=many"},
  };
  for (const auto& [spec, message] : cases) {
    const auto request = ParseModelSpec(spec);
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << spec;
    EXPECT_THAT(std::string(request.status().message()), testing::HasSubstr(message));
  }
}

}  // namespace
}  // namespace nibble
