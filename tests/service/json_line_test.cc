// JSON that other programs can always read, whatever text goes in.
#include "service/json_line.h"

#include <gtest/gtest.h>

#include <limits>

namespace nibble {
namespace {

TEST(JsonLine, KeepsOrderAndTypes) {
  JsonLine line;
  line.Add("text", "a \"b\" \\ \n\x01");
  line.Add("count", 3);
  line.Add("big", int64_t{9007199254740993});
  line.Add("share", 0.25);
  line.Add("nan", std::numeric_limits<double>::quiet_NaN());
  line.Add("yes", true);
  line.AddRaw("list", "[1,2]");
  EXPECT_EQ(line.Finish(),
            "{\"text\":\"a \\\"b\\\" \\\\ "
            "\\n\\u0001\",\"count\":3,\"big\":9007199254740993,\"share\":0.25,"
            "\"nan\":null,\"yes\":true,\"list\":[1,2]}");
}

TEST(JsonString, KeepsValidUtf8AndReplacesTheRest) {
  EXPECT_EQ(JsonString("\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80"),
            "\"\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80\"");
  EXPECT_EQ(JsonString("a\xFF"), "\"a\\ufffd\"");
  EXPECT_EQ(JsonString("\xE4\xB8"), "\"\\ufffd\\ufffd\"");             // cut short
  EXPECT_EQ(JsonString("\xC0\xAF"), "\"\\ufffd\\ufffd\"");             // overlong
  EXPECT_EQ(JsonString("\xED\xA0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");  // a surrogate
  EXPECT_EQ(JsonString("\xF4\x90\x80\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
}

}  // namespace
}  // namespace nibble
