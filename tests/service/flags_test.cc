// The flag table: parsing, help and the config file say the same.
#include "service/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Values {
  bool json = false, color = true;
  std::string name = "a";
  int32_t count = 3;
  int64_t bytes = 0;
  double share = 0.5;
  absl::Duration wait = absl::Seconds(25);
  std::vector<std::string> models;
  std::string level = "info";
  std::optional<bool> reflection;
  std::string path;
};

struct Table {
  Values values;
  Flags flags{"nibble test [flags]", "Tests."};
  Table() {
    flags.Add("json", &values.json, "Print JSON.");
    flags.Add("color", &values.color, "Colours.");
    flags.Add("reflection", &values.reflection, "Reflection.");
    flags.Group("Numbers");
    flags.Add("name", &values.name, "NAME", "A name.");
    flags.Add("count", &values.count, "N", "A count.");
    flags.AddBytes("memory", &values.bytes, "Bytes.");
    flags.Add("share", &values.share, "X", "A share.");
    flags.Add("wait", &values.wait, "A while.");
    flags.AddList("model", &values.models, "NAME=PATH", "Models.");
    flags.AddChoice("level", &values.level, {"info", "error"}, "A level.");
    flags.AddPositional(&values.path);
  }
};

TEST(Flags, TakesValuesAfterEqualsOrSpace) {
  Table table;
  ASSERT_TRUE(table.flags
                  .Parse({"--json", "--no-color", "--name=b c", "--count", "7", "--memory", "1.5Gi",
                          "--share=0.25", "--wait", "250ms", "--model", "a=/x", "--model=b=/y",
                          "--level", "error", "/some/path"})
                  .ok());
  const Values& got = table.values;
  EXPECT_TRUE(got.json);
  EXPECT_FALSE(got.color);
  EXPECT_FALSE(got.reflection.has_value());
  EXPECT_EQ(got.name, "b c");
  EXPECT_EQ(got.count, 7);
  EXPECT_EQ(got.bytes, 1610612736);
  EXPECT_EQ(got.share, 0.25);
  EXPECT_EQ(got.wait, absl::Milliseconds(250));
  EXPECT_THAT(got.models, ElementsAre("a=/x", "b=/y"));
  EXPECT_EQ(got.level, "error");
  EXPECT_EQ(got.path, "/some/path");
}

TEST(Flags, KnowsWhetherAnOptionalBoolWasGiven) {
  Table on, off;
  ASSERT_TRUE(on.flags.Parse({"--reflection"}).ok());
  ASSERT_TRUE(off.flags.Parse({"--no-reflection"}).ok());
  EXPECT_EQ(on.values.reflection, true);
  EXPECT_EQ(off.values.reflection, false);
}

TEST(Flags, RefusesWhatItCannotRead) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--cuont", "1"}, "did you mean --count?"},
      {{"--zzzzzzzzzz"}, "unknown flag --zzzzzzzzzz"},
      {{"--count"}, "--count needs a value (N)"},
      {{"--count", "7x"}, "--count: got \"7x\""},
      {{"--count", "99999999999"}, "--count: got"},
      {{"--share", "nan"}, "--share: got \"nan\""},
      {{"--wait", "-3s"}, "want a duration"},
      {{"--wait", "soon"}, "want a duration"},
      {{"--memory", "lots"}, "want bytes"},
      {{"--memory", "-1"}, "want bytes"},
      {{"--level", "loud"}, "want one of info|error"},
      {{"--json=perhaps"}, "want true or false"},
      {{"one", "two"}, "unexpected argument \"two\""},
  };
  for (const auto& [args, message] : cases) {
    Table table;
    const absl::Status status = table.flags.Parse(args);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << args[0];
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(Flags, HelpListsEveryFlagWithItsDefault) {
  Table table;
  ASSERT_TRUE(table.flags.Parse({"--help"}).ok());
  EXPECT_TRUE(table.flags.help_wanted());
  const std::string help = table.flags.Help();
  for (const std::string& name : table.flags.names()) EXPECT_THAT(help, HasSubstr(name));
  EXPECT_THAT(help, HasSubstr("--[no-]color"));
  EXPECT_THAT(help, HasSubstr("Default: 25s."));
  EXPECT_THAT(help, HasSubstr("Numbers:"));
}

TEST(Flags, ReadsTheSameNamesFromAFile) {
  const TempDir directory;
  const std::string path = directory.File("nibble.conf");
  std::ofstream(path) << "# a comment\n\nname = from file  # and another\nmodel = a=/x\nmodel = "
                         "b=/y\njson = true\n";
  Table table;
  ASSERT_TRUE(table.flags.ReadFile(path).ok());
  EXPECT_EQ(table.values.name, "from file");
  EXPECT_THAT(table.values.models, ElementsAre("a=/x", "b=/y"));
  EXPECT_TRUE(table.values.json);

  std::ofstream(path) << "name = x\nbogus = 1\n";
  const absl::Status status = table.flags.ReadFile(path);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(":2: unknown flag --bogus"));
  EXPECT_EQ(table.flags.ReadFile(path + ".none").code(), absl::StatusCode::kNotFound);
}

TEST(FormatBytes, UsesPowersOfTen) {
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(111463416), "111.5 MB");
  EXPECT_EQ(FormatBytes(42709041152), "42.71 GB");
}

}  // namespace
}  // namespace nibble
