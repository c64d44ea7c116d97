#include "engine/quantize/hugging_face_json.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "engine/loader/json.h"

namespace nibble {
namespace {

std::string Number(float number) {
  std::string text = json::Write(json::Decimal(number));
  text.pop_back();
  return text;
}

TEST(HuggingFaceJson, WritesEveryKindInItsOrder) {
  const Value value = json::Object(
      {{"b", json::Integer(-7)},
       {"a", json::Array({json::Flag(true), json::Null(), json::Text("x")})},
       {"pairs", json::Array({json::Array({json::Integer(1)}), json::Array({})})},
       {"none", json::Array({})},
       {"inner", json::Object({{"empty", json::Object({})}, {"off", json::Flag(false)}})}});
  EXPECT_EQ(json::Write(value), R"({
  "b": -7,
  "a": [true, null, "x"],
  "pairs": [
    [1],
    []
  ],
  "none": [],
  "inner": {
    "empty": {},
    "off": false
  }
}
)");
}

TEST(HuggingFaceJson, EscapesWhatItMustAndNothingElse) {
  EXPECT_EQ(json::Write(json::Text("\"\\\n\r\t\x01\x1f\x7f/é\u2028")),
            "\"\\\"\\\\\\n\\r\\t\\u0001\\u001f\x7f/é\u2028\"\n");
}

TEST(HuggingFaceJson, EveryTextReadsBackAsItself) {
  std::string text;
  for (char byte = 0; byte < 127; ++byte) text.push_back(byte);
  text += "é😀";
  const auto value = ParseJson("x.json", json::Write(json::Object({{text, json::Text(text)}})));
  ASSERT_TRUE(value.ok()) << value.status();
  ASSERT_NE(value->Find(text), nullptr);
  EXPECT_EQ(*value->Find(text)->AsText(), text);
}

TEST(HuggingFaceJson, WritesAFloatInItsOwnDecimalsAsPythonDoes) {
  EXPECT_EQ(Number(1e-5f), "1e-05");
  EXPECT_EQ(Number(1e-4f), "0.0001");
  EXPECT_EQ(Number(0.1f), "0.1");
  EXPECT_EQ(Number(0), "0.0");
  EXPECT_EQ(Number(-8), "-8.0");
  EXPECT_EQ(Number(1e5f), "100000.0");
  EXPECT_EQ(Number(1e15f), "1000000000000000.0");
  EXPECT_EQ(Number(1e16f), "1e+16");
}

TEST(HuggingFaceJson, EveryFloatReadsBackAsItself) {
  for (uint32_t bits = 1; bits < 0x7f800000; bits += 654321) {  // up to infinity
    const auto number = std::bit_cast<float>(bits);
    const auto value = ParseJson("x.json", json::Write(json::Array({json::Decimal(number)})));
    ASSERT_TRUE(value.ok()) << value.status();
    const double* read = (*value->AsArray())[0].AsDouble();
    ASSERT_NE(read, nullptr) << number;
    EXPECT_EQ(static_cast<float>(*read), number);
  }
}

TEST(HuggingFaceJsonDeathTest, RefusesANumberThatIsNone) {
  EXPECT_DEATH(json::Decimal(std::numeric_limits<float>::infinity()), "is finite");
}

}  // namespace
}  // namespace nibble
