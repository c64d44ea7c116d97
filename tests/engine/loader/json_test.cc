#include "engine/loader/json.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

TEST(Json, KeepsEveryKindOfValue) {
  const auto json =
      ParseJson("f", R"( {"a":[1,-2.5,1e3],"b":{"c":null,"d":true,"e":"x\u00e9\n"}} )");
  ASSERT_THAT(json, IsOk());
  const Value::Array& a = *json->Find("a")->AsArray();
  EXPECT_EQ(*a[0].AsInt(), 1);
  EXPECT_EQ(*a[1].AsDouble(), -2.5);
  EXPECT_EQ(*a[2].AsDouble(), 1000.0);
  const Value& b = *json->Find("b");
  ASSERT_EQ(b.AsObject()->size(), 3u);
  EXPECT_TRUE((*b.AsObject())[0].value.is_null());
  EXPECT_TRUE(*b.Find("d")->AsBool());
  EXPECT_EQ(*b.Find("e")->AsText(), "x\xc3\xa9\n");
}

TEST(Json, TurnsIntegersPast64BitsIntoDoubles) {
  const auto json = ParseJson("f", R"({"big":1000000000000000019884624838656,)"
                                   R"("max":9223372036854775807,"u":18446744073709551615})");
  ASSERT_THAT(json, IsOk());
  EXPECT_EQ(*json->Find("big")->AsDouble(), 1e30);
  EXPECT_EQ(*json->Find("max")->AsInt(), INT64_MAX);
  EXPECT_EQ(*json->Find("u")->AsDouble(), 18446744073709551615.0);
}

TEST(Json, RefusesWhatIsNotJson) {
  const char* const wrong[] = {"",
                               " ",
                               "{",
                               "}",
                               "[1,2",
                               "[1,]",
                               "{\"a\":}",
                               "{\"a\":1,}",
                               "{\"a\" 1}",
                               "{a:1}",
                               "[01]",
                               "[1.]",
                               "[.5]",
                               "[+1]",
                               "[1e]",
                               "[--1]",
                               "[tru]",
                               "[True]",
                               "[nul]",
                               "[nulll]",
                               "[NaN]",
                               "[Infinity]",
                               "[\"\\x\"]",
                               "[\"\\ud800\"]",
                               "[\"a\nb\"]",
                               "[\"abc]",
                               "[1]]",
                               "{} {}",
                               "[1] x",
                               "{\"a\":1}}",
                               "[1 2]",
                               "['a']",
                               "{\"a\":1]",
                               "[1}",
                               "\xef\xbb\xbf[1]",
                               "// x\n[1]",
                               "[\"\xff\"]",
                               "[\"\xc3\"]",
                               "[1,,2]",
                               "{\"a\":1 \"b\":2}",
                               "[truefalse]",
                               "[-]",
                               "[1e999999]"};
  for (const char* text : wrong) {
    EXPECT_THAT(ParseJson("f.json", text),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("f.json: is not valid JSON: ")))
        << text;
  }
}

TEST(Json, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_THAT(ParseJson("f", R"({"a":1,"b":2,"a":3})"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("has the key \"a\" twice")));
  EXPECT_THAT(ParseJson("f", R"([{"x":{"k":1,"\u006b":2}}])"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("has the key \"k\" twice")));
}

TEST(Json, BoundsDepth) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_THAT(ParseJson("f", nested(64)), IsOk());
  EXPECT_THAT(ParseJson("f", nested(66)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("deeper than 64")));
  EXPECT_THAT(ParseJson("f", nested(1000000)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("")));
  EXPECT_THAT(ParseJson("f", std::string(1000000, '[')),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("")));
}

TEST(Json, BoundsTheNumberOfValues) {
  std::string text = "[0";
  for (int i = 0; i < 4200000; ++i) text += ",0";
  EXPECT_THAT(ParseJson("f", text + "]"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("over 4194304 values")));
}

TEST(Json, WantsAnObjectWhereOneIsNeeded) {
  EXPECT_THAT(ParseJsonObject("f.json", "{}"), IsOk());
  EXPECT_THAT(ParseJsonObject("f.json", "[]"),
              StatusIs(absl::StatusCode::kDataLoss, "f.json: is an array, wanted an object"));
}

TEST(Json, SurvivesEveryTruncation) {
  const std::string text = R"({"a":[1,-2.5e3,true,null],"b":{"c":"x\u00e9"},"d":false})";
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(ParseJson("f", text.substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("f: ")))
        << size;
  }
}

TEST(JsonMember, ReadsOneMemberOfALongFile) {
  const std::string text = R"({"x":{"y":[1,2]},"wanted":[{"id":3}],"rest":[1,2,3]})";
  const auto member = ParseJsonMember("f", text, "wanted");
  ASSERT_THAT(member, IsOk());
  EXPECT_EQ(*(*member->AsArray())[0].Find("id")->AsInt(), 3);
  const auto absent = ParseJsonMember("f", text, "absent");
  ASSERT_THAT(absent, IsOk());
  EXPECT_TRUE(absent->is_null());
  EXPECT_THAT(ParseJsonMember("f", "[1]", "wanted"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not valid JSON")));
  EXPECT_THAT(ParseJsonMember("f", R"({"wanted":[1,)", "wanted"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not valid JSON")));
}

}  // namespace
}  // namespace nibble
