// The texts of bitsandbytes' form, byte for byte.
#include "engine/quantize/bitsandbytes_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/loader/json.h"

namespace nibble {
namespace {

TEST(PythonRepr, SpellsNumbersAsPythonDoes) {
  // What python3 prints for these.
  EXPECT_EQ(PythonRepr(static_cast<double>(0.05f)), "0.05000000074505806");
  EXPECT_EQ(PythonRepr(0.0), "0.0");
  EXPECT_EQ(PythonRepr(-0.0), "-0.0");
  EXPECT_EQ(PythonRepr(1.0), "1.0");
  EXPECT_EQ(PythonRepr(-12.5), "-12.5");
  EXPECT_EQ(PythonRepr(0.0001), "0.0001");
  EXPECT_EQ(PythonRepr(0.00001), "1e-05");
  EXPECT_EQ(PythonRepr(1.5e-7), "1.5e-07");
  EXPECT_EQ(PythonRepr(1e15), "1000000000000000.0");
  EXPECT_EQ(PythonRepr(1e16), "1e+16");
  EXPECT_EQ(PythonRepr(123456.75), "123456.75");
  EXPECT_EQ(PythonRepr(static_cast<double>(1e-38f)), "9.999999350456404e-39");
}

TEST(QuantStateText, IsBitsandbytesByteForByte) {
  FourBitMatrix matrix;
  matrix.n = matrix.k = 4096;
  EXPECT_EQ(QuantStateText(matrix, DType::kBF16),
            "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": "
            "[4096, 4096]}");
  matrix.double_quant = true;
  matrix.nested_offset = 0.05f;
  EXPECT_EQ(QuantStateText(matrix, DType::kBF16),
            "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": "
            "[4096, 4096], \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
            "\"nested_offset\": 0.05000000074505806}");
  matrix.format = WeightFormat::kFp4;
  matrix.double_quant = false;
  EXPECT_EQ(QuantStateText(matrix, DType::kF32),
            "{\"quant_type\": \"fp4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": "
            "[4096, 4096]}");
}

TEST(QuantizationConfigText, IsJsonWithEveryKeyThatTransformersReads) {
  const std::vector<std::string> modules = {"lm_head", "model.layers.0.mlp.up_proj"};
  const auto parsed =
      ParseJsonObject("config", QuantizationConfigText({.format = WeightFormat::kFp4,
                                                        .double_quant = false,
                                                        .compute = DType::kBF16,
                                                        .skip_modules = modules}));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed->Find("quant_method")->AsText(), "bitsandbytes");
  EXPECT_EQ(*parsed->Find("bnb_4bit_quant_type")->AsText(), "fp4");
  EXPECT_EQ(*parsed->Find("bnb_4bit_compute_dtype")->AsText(), "bfloat16");
  EXPECT_TRUE(*parsed->Find("load_in_4bit")->AsBool());
  EXPECT_FALSE(*parsed->Find("load_in_8bit")->AsBool());
  EXPECT_EQ(parsed->Find("llm_int8_skip_modules")->AsArray()->size(), 2u);
}

}  // namespace
}  // namespace nibble
