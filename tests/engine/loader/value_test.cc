#include "engine/loader/value.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/status.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

Value Sample() {
  return Value(Value::Object{{"int", Value(int64_t{7})},
                             {"real", Value(2.5)},
                             {"nan", Value(std::nan(""))},
                             {"flag", Value(true)},
                             {"text", Value(std::string("abc"))},
                             {"none", Value()},
                             {"list", Value(Value::Array{Value(int64_t{1})})},
                             {"inner", Value(Value::Object{{"x", Value(int64_t{1})}})}});
}

TEST(Value, FindsMembersAndTreatsNullAsAbsent) {
  const Value value = Sample();
  ASSERT_NE(value.Find("int"), nullptr);
  EXPECT_EQ(*value.Find("int")->AsInt(), 7);
  EXPECT_EQ(value.Find("none"), nullptr);
  EXPECT_EQ(value.Find("absent"), nullptr);
  EXPECT_EQ(Value(int64_t{1}).Find("int"), nullptr);
}

TEST(Value, DescribesItselfForMessages) {
  EXPECT_EQ(Value().Describe(), "null");
  EXPECT_EQ(Value(true).Describe(), "true");
  EXPECT_EQ(Value(int64_t{-3}).Describe(), "-3");
  EXPECT_EQ(Value(2.5).Describe(), "2.5");
  EXPECT_EQ(Value(std::string("a\nb")).Describe(), "\"a\\nb\"");
  EXPECT_EQ(Value(Value::Array()).Describe(), "an array");
  EXPECT_EQ(Value(Value::Object()).Describe(), "an object");
}

TEST(Fields, ReadsEveryKindAndFallsBackWhenAbsent) {
  const Value value = Sample();
  Fields fields("f.json", value);
  EXPECT_EQ(fields.Int("int", 1, 9), 7);
  EXPECT_EQ(fields.IntOr("absent", 5, 1, 9), 5);
  EXPECT_EQ(fields.IntOr("none", 5, 1, 9), 5);
  EXPECT_EQ(fields.Number("real", 0, 9), 2.5);
  EXPECT_EQ(fields.Number("int", 0, 9), 7.0);
  EXPECT_EQ(fields.NumberOr("absent", 3, 0, 9), 3.0);
  EXPECT_TRUE(fields.BoolOr("flag", false));
  EXPECT_TRUE(fields.BoolOr("absent", true));
  EXPECT_EQ(fields.Text("text"), "abc");
  EXPECT_EQ(fields.TextOr("absent", "d"), "d");
  EXPECT_NE(fields.ArrayOrNull("list"), nullptr);
  EXPECT_NE(fields.ObjectOrNull("inner"), nullptr);
  EXPECT_EQ(fields.ObjectOrNull("absent"), nullptr);
  EXPECT_TRUE(fields.Has("flag"));
  EXPECT_FALSE(fields.Has("none"));
  EXPECT_THAT(fields.status(), IsOk());
}

TEST(Fields, NamesFieldGotAndWanted) {
  const Value value = Sample();
  const auto error = [&](auto read) {
    Fields fields("f.json", value);
    read(fields);
    return fields.status();
  };
  const auto lost = [](const char* message) {
    return StatusIs(absl::StatusCode::kDataLoss, message);
  };
  EXPECT_THAT(error([](Fields& f) { f.Int("absent", 1, 9); }),
              lost("f.json: \"absent\" is missing"));
  EXPECT_THAT(error([](Fields& f) { f.Text("none"); }), lost("f.json: \"none\" is missing"));
  EXPECT_THAT(error([](Fields& f) { f.Int("int", 8, 9); }),
              lost("f.json: \"int\" is 7, wanted an integer from 8 to 9"));
  EXPECT_THAT(error([](Fields& f) { f.Int("real", 0, 9); }),
              lost("f.json: \"real\" is 2.5, wanted an integer from 0 to 9"));
  EXPECT_THAT(error([](Fields& f) { f.Number("nan", 0, 9); }),
              lost("f.json: \"nan\" is nan, wanted a number from 0 to 9"));
  EXPECT_THAT(error([](Fields& f) { f.Number("text", 0, 9); }),
              lost("f.json: \"text\" is \"abc\", wanted a number from 0 to 9"));
  EXPECT_THAT(error([](Fields& f) { f.BoolOr("int", true); }),
              lost("f.json: \"int\" is 7, wanted true or false"));
  EXPECT_THAT(error([](Fields& f) { f.TextOr("list", ""); }),
              lost("f.json: \"list\" is an array, wanted a string"));
  EXPECT_THAT(error([](Fields& f) { f.ArrayOrNull("inner"); }),
              lost("f.json: \"inner\" is an object, wanted an array"));
  EXPECT_THAT(error([](Fields& f) { f.ObjectOrNull("list"); }),
              lost("f.json: \"list\" is an array, wanted an object"));
}

TEST(Fields, KeepsTheFirstErrorAndItsReason) {
  const Value value = Sample();
  Fields fields("f.json", value);
  fields.Int("absent", 1, 9);
  fields.Int("text", 1, 9);
  fields.Fail(absl::InternalError("later"));
  EXPECT_THAT(fields.status(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("absent")));
  EXPECT_EQ(ReasonOf(fields.status()), "CORRUPT_MODEL_FILE");
}

}  // namespace
}  // namespace nibble
