#include "engine/loader/quant_state.h"

#include <gtest/gtest.h>

#include <string>

#include "engine/status.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

const char kPlain[] =
    R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4096, 4096]})";
const char kNested[] =
    R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4096, 4096], )"
    R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05000000074505806})";

absl::StatusOr<QuantState> Parse(const std::string& text, const char* type = "nf4") {
  return ParseQuantState("m: tensor \"w\"", type, text);
}

// kNested with one piece replaced.
absl::Status Edited(const std::string& from, const std::string& to) {
  std::string text = kNested;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return Parse(text.replace(at, from.size(), to)).status();
}

auto Lost(const std::string& part) {
  return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
}
auto Unsupported(const std::string& part) {
  return StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(part));
}

TEST(QuantState, ReadsWhatBitsAndBytesWrites) {
  ASSERT_EQ(std::string(kPlain).size(), 82u);
  const auto plain = Parse(kPlain);
  ASSERT_THAT(plain, IsOk());
  EXPECT_EQ(plain->type, TensorType::kNF4);
  EXPECT_EQ(plain->group_size, 64);
  EXPECT_EQ(plain->source_dtype, DType::kBF16);
  EXPECT_EQ(plain->rows, 4096);
  EXPECT_EQ(plain->cols, 4096);
  EXPECT_FALSE(plain->nested);
  ASSERT_EQ(std::string(kNested).size(), 172u);
  const auto nested = Parse(kNested);
  ASSERT_THAT(nested, IsOk());
  EXPECT_TRUE(nested->nested);
  EXPECT_EQ(nested->nested_offset, 0.05f);
}

TEST(QuantState, IgnoresWhitespaceAndTheOrderOfKeys) {
  const auto state = Parse(
      "\n{ \"nested_offset\":-1.5e-05,\"shape\":[3 ,5],\"nested_dtype\":\"float32\",\t\"dtype\" "
      ":\"float32\",\"blocksize\":4096,\"quant_type\":\"fp4\",\"nested_blocksize\":256 }  ",
      "fp4");
  ASSERT_THAT(state, IsOk());
  EXPECT_EQ(state->type, TensorType::kFP4);
  EXPECT_EQ(state->group_size, 4096);
  EXPECT_EQ(state->source_dtype, DType::kF32);
  EXPECT_EQ(state->rows, 3);
  EXPECT_EQ(state->cols, 5);
  EXPECT_EQ(state->nested_offset, -1.5e-5f);
}

TEST(QuantState, ReadsEverySpellingOfTheOffset) {
  for (const auto& [text, value] : {std::pair{"0", 0.0f},
                                    {"1", 1.0f},
                                    {"0.0", 0.0f},
                                    {"1e-05", 1e-5f},
                                    {"2.2831936e-03", 2.2831936e-3f},
                                    {"0.09375", 0.09375f}}) {
    std::string nested = kNested;
    const std::string offset = "0.05000000074505806";
    nested.replace(nested.find(offset), offset.size(), text);
    const auto state = Parse(nested);
    ASSERT_THAT(state, IsOk()) << text;
    EXPECT_EQ(state->nested_offset, value) << text;
  }
}

TEST(QuantState, TakesEveryAllowedGroupSize) {
  for (const int size : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    const std::string text = "\"blocksize\": " + std::to_string(size);
    EXPECT_THAT(Edited("\"blocksize\": 64", text), IsOk());
  }
  for (const char* size : {"0", "-64", "1", "16", "48", "63", "8192", "4294967360"}) {
    EXPECT_THAT(Edited("\"blocksize\": 64", std::string("\"blocksize\": ") + size),
                Lost("\"blocksize\" is " + std::string(size)))
        << size;
  }
  EXPECT_THAT(Edited("\"blocksize\": 64", "\"blocksize\": 48"),
              StatusIs(absl::StatusCode::kDataLoss,
                       "m: tensor \"w\": \"blocksize\" is 48, wanted 32, 64, 128 … 4096"));
  EXPECT_THAT(Edited("\"blocksize\": 64", "\"blocksize\": 64.5"), Lost("\"blocksize\" is 64.5"));
  EXPECT_THAT(Edited("\"blocksize\": 64", "\"blocksize\": \"64\""), Lost("\"blocksize\" is"));
}

TEST(QuantState, RefusesWhatIsNoJsonObject) {
  for (const char* text : {"", "{", "[]", "null", "{}x", "\xff", "{\"a\":1,\"a\":1}"}) {
    EXPECT_THAT(Parse(text), Lost("m: tensor \"w\"")) << text;
  }
  EXPECT_THAT(Edited("0.05000000074505806", "NaN"), Lost("is not valid JSON"));
  EXPECT_THAT(Edited("0.05000000074505806", "Infinity"), Lost("is not valid JSON"));
  EXPECT_THAT(Parse(kPlain + std::string(5000, ' ')), Lost("at most 4096 are allowed"));
}

TEST(QuantState, RefusesAMissingOrUnknownKey) {
  for (const char* key : {"quant_type", "blocksize", "dtype", "shape", "nested_blocksize",
                          "nested_dtype", "nested_offset"}) {
    // Without the key the object has one that nobody knows.
    EXPECT_THAT(Edited(key, "other"), Lost("has the unknown key \"other\"")) << key;
  }
  EXPECT_THAT(Parse(R"({"blocksize": 64, "dtype": "float16", "shape": [1, 1]})"),
              Lost("\"quant_type\" is missing"));
  EXPECT_THAT(Parse(R"({"quant_type": "nf4", "dtype": "float16", "shape": [1, 1]})"),
              Lost("\"blocksize\" is missing"));
  EXPECT_THAT(Parse(R"({"quant_type": "nf4", "blocksize": 64, "shape": [1, 1]})"),
              Lost("\"dtype\" is missing"));
  EXPECT_THAT(Parse(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16"})"),
              Lost("\"shape\" is not"));
}

TEST(QuantState, RefusesHalfOfTheNestedFields) {
  EXPECT_THAT(Edited("\"nested_blocksize\": 256, ", ""), Lost("\"nested_blocksize\" is missing"));
  EXPECT_THAT(Edited("\"nested_dtype\": \"float32\", ", ""), Lost("\"nested_dtype\" is missing"));
  EXPECT_THAT(Edited(", \"nested_offset\": 0.05000000074505806", ""),
              Lost("\"nested_offset\" is missing"));
}

TEST(QuantState, RefusesOtherTypesByName) {
  EXPECT_THAT(Parse(kPlain, "fp4"), Lost("\"quant_type\" is \"nf4\", the tensor's name says "
                                         "\"fp4\""));
  EXPECT_THAT(Edited("\"nf4\"", "\"int4\""), Lost("\"quant_type\" is \"int4\""));
  EXPECT_THAT(Edited("bfloat16", "float64"),
              Unsupported("\"dtype\" is \"float64\"; supported: float16, bfloat16, float32"));
  EXPECT_THAT(Edited("256", "128"), Unsupported("\"nested_blocksize\" is 128; supported: 256"));
  EXPECT_THAT(Edited("\"float32\"", "\"float16\""),
              Unsupported("\"nested_dtype\" is \"float16\"; supported: float32"));
}

TEST(QuantState, RefusesShapesThatAreNone) {
  for (const char* shape :
       {"[]", "[5]", "[2, 3, 4]", "[0, 5]", "[5, 0]", "[-1, -1]", "[1.5, 2]", "[\"1\", 2]", "7",
        "[4294967296, 4294967296]", "[3037000500, 3037000500]", "[1152921504606846976, 1]",
        "[9223372036854775807, 9223372036854775807]", "[99999999999999999999, 1]"}) {
    EXPECT_THAT(Edited("[4096, 4096]", shape), Lost("\"shape\" is")) << shape;
  }
  EXPECT_THAT(Edited("[4096, 4096]", "null"), Lost("\"shape\" is not"));
  EXPECT_THAT(Edited("[4096, 4096]", "[1073741823, 1073741824]"), IsOk());
}

TEST(QuantState, RefusesAnOffsetPastFp32) {
  for (const char* offset : {"1e39", "-1e300", "3.5e38"}) {
    const absl::Status status = Edited("0.05000000074505806", offset);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("m: tensor \"w\": \"nested_offset\" is ")));
    EXPECT_EQ(ReasonOf(status), "WEIGHT_NOT_FINITE");
  }
  EXPECT_THAT(Edited("0.05000000074505806", "\"0.05\""), Lost("\"nested_offset\" is \"0.05\""));
}

}  // namespace
}  // namespace nibble
