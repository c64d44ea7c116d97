#include "engine/loader/hf_quantization.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/loader/json.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

absl::StatusOr<std::optional<QuantizationConfig>> Read(const std::string& config) {
  const auto json = ParseJsonObject("config.json", "{\"quantization_config\": " + config + "}");
  if (!json.ok()) return json.status();
  Fields fields("config.json", *json);
  const std::optional<QuantizationConfig> out = ReadQuantizationConfig(fields);
  if (!fields.status().ok()) return fields.status();
  return out;
}

QuantizationConfig MustRead(const std::string& config) {
  const auto out = Read(config);
  EXPECT_THAT(out, IsOk());
  EXPECT_TRUE(out.ok() && out->has_value());
  return out.ok() && out->has_value() ? **out : QuantizationConfig();
}

TEST(QuantizationConfig, ReadsFourBits) {
  const QuantizationConfig config = MustRead(
      R"({"_load_in_4bit": true, "_load_in_8bit": false, "bnb_4bit_compute_dtype": "bfloat16",
          "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4",
          "bnb_4bit_use_double_quant": true, "llm_int8_skip_modules": ["lm_head"],
          "llm_int8_threshold": 6.0, "load_in_4bit": true, "load_in_8bit": false,
          "quant_method": "bitsandbytes"})");
  EXPECT_EQ(config.format, WeightFormat::kNf4);
  EXPECT_EQ(config.int8_threshold, 6.0f);
  // BitsAndBytesConfig's own default.
  EXPECT_EQ(MustRead(R"({"load_in_4bit": true, "quant_method": "bitsandbytes"})").format,
            WeightFormat::kFp4);
}

TEST(QuantizationConfig, ReadsEightBits) {
  const QuantizationConfig config = MustRead(
      R"({"load_in_8bit": true, "llm_int8_threshold": 2.5, "quant_method": "bitsandbytes"})");
  EXPECT_EQ(config.format, WeightFormat::kInt8);
  EXPECT_EQ(config.int8_threshold, 2.5f);
  EXPECT_EQ(MustRead(R"({"_load_in_8bit": true, "llm_int8_threshold": 0})").int8_threshold, 0.0f);
}

TEST(QuantizationConfig, ReadsOldFilesThatNameNoMethod) {
  EXPECT_EQ(MustRead(R"({"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"})").format,
            WeightFormat::kNf4);
  EXPECT_EQ(MustRead(R"({"_load_in_4bit": true, "bnb_4bit_quant_type": "fp4"})").format,
            WeightFormat::kFp4);
}

TEST(QuantizationConfig, IsNothingForAFileThatIsNotQuantized) {
  for (const char* config : {"null", R"({"quant_method": "bitsandbytes"})",
                             R"({"quant_method": "bitsandbytes", "load_in_4bit": false})"}) {
    const auto out = Read(config);
    ASSERT_THAT(out, IsOk()) << config;
    EXPECT_FALSE(out->has_value()) << config;
  }
}

TEST(QuantizationConfig, RefusesOtherMethodsByName) {
  for (const std::string method : {"gptq", "awq", "fp8", "compressed-tensors", "mxfp4"}) {
    EXPECT_THAT(Read("{\"quant_method\": \"" + method + "\", \"load_in_4bit\": true}"),
                StatusIs(absl::StatusCode::kUnimplemented,
                         "config.json: quantization_config: weights quantized by \"" + method +
                             "\" are not supported; supported: bitsandbytes"));
  }
  EXPECT_THAT(Read("{}"), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("\"unnamed\"")));
  EXPECT_THAT(Read(R"({"load_in_4bit": true, "bnb_4bit_quant_type": "int4"})"),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("\"bnb_4bit_quant_type\" is \"int4\"; supported: nf4, fp4")));
}

TEST(QuantizationConfig, RefusesFieldsOfTheWrongKind) {
  for (const char* config : {"3", R"({"quant_method": 3})", R"({"load_in_4bit": "yes"})",
                             R"({"load_in_8bit": true, "llm_int8_threshold": -1})",
                             R"({"load_in_8bit": true, "llm_int8_threshold": "6"})"}) {
    EXPECT_THAT(Read(config),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("quantization_config")))
        << config;
  }
  EXPECT_THAT(Read(R"({"load_in_4bit": true, "load_in_8bit": true})"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("both load_in_4bit and")));
}

TensorRef Tensor(const char* name, TensorType type) {
  TensorRef tensor;
  tensor.name = name;
  tensor.type = type;
  tensor.file = "m.safetensors";
  return tensor;
}

ModelConfig Says(std::optional<WeightFormat> format, float threshold = 6.0f) {
  ModelConfig config;
  if (format.has_value()) config.quantization = QuantizationConfig{*format, threshold};
  return config;
}

TEST(ReconcileQuantization, LetsTheTensorsDecide) {
  ModelConfig config = Says(WeightFormat::kFp4);
  const std::vector<TensorRef> nf4 = {Tensor("e", TensorType::kF16), Tensor("a", TensorType::kNF4)};
  EXPECT_THAT(ReconcileQuantization(nf4, &config), IsOk());
  EXPECT_EQ(config.quantization->format, WeightFormat::kNf4);

  config = Says(std::nullopt);
  EXPECT_THAT(ReconcileQuantization({Tensor("a", TensorType::kINT8)}, &config), IsOk());
  ASSERT_TRUE(config.quantization.has_value());
  EXPECT_EQ(config.quantization->format, WeightFormat::kInt8);
  EXPECT_EQ(config.quantization->int8_threshold, 6.0f);

  config = Says(WeightFormat::kInt8, 0.5f);
  EXPECT_THAT(ReconcileQuantization({Tensor("a", TensorType::kINT8)}, &config), IsOk());
  EXPECT_EQ(config.quantization->int8_threshold, 0.5f);

  config = Says(WeightFormat::kNf4);
  EXPECT_THAT(ReconcileQuantization({Tensor("a", TensorType::kF16)}, &config), IsOk());
  EXPECT_FALSE(config.quantization.has_value());
}

TEST(ReconcileQuantization, RefusesContradictionsNamingBothSides) {
  ModelConfig config = Says(WeightFormat::kInt8);
  EXPECT_THAT(ReconcileQuantization({Tensor("a", TensorType::kNF4)}, &config),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "m.safetensors: tensor \"a\" is NF4, config.json's quantization_config says "
                       "int8"));
  config = Says(WeightFormat::kFp4);
  EXPECT_THAT(
      ReconcileQuantization({Tensor("a", TensorType::kINT8)}, &config),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("\"a\" is INT8, config.json's")));
  config = Says(std::nullopt);
  EXPECT_THAT(ReconcileQuantization({Tensor("a", TensorType::kINT8), Tensor("b", TensorType::kFP4)},
                                    &config),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "m.safetensors: tensor \"b\" is FP4, tensor \"a\" is INT8"));
}

}  // namespace
}  // namespace nibble
