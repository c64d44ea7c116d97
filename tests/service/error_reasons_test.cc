// Every reason that the source can give is listed in errors.proto, and every one listed is given.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "nibble/v1/errors.pb.h"

namespace nibble {
namespace {

std::string TextOf(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The string literals of a floor that look like a reason: UPPER_SNAKE.
std::set<std::string> LiteralsOf(const std::string& floor) {
  std::set<std::string> found;
  const std::regex literal("\"([A-Z]+(_[A-Z0-9]+)*)\"");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           std::string(NIBBLE_SOURCE_DIR) + "/" + floor)) {
    if (entry.path().extension() != ".cc" && entry.path().extension() != ".h") continue;
    const std::string text = TextOf(entry.path());
    for (std::sregex_iterator it(text.begin(), text.end(), literal), end; it != end; ++it) {
      found.insert((*it)[1]);
    }
  }
  return found;
}

TEST(ErrorReasons, EveryOneListedIsGivenSomewhere) {
  std::set<std::string> given = LiteralsOf("engine");
  given.merge(LiteralsOf("service"));
  const auto* reasons = v1::ErrorReason_descriptor();
  for (int i = 0; i < reasons->value_count(); ++i) {
    const std::string name = reasons->value(i)->name();
    if (i > 0) {
      EXPECT_TRUE(given.contains(name)) << name;
    }
  }
}

// Arguments of what makes an error: Error(code, "REASON", …), Invalid("REASON", …) and their like.
TEST(ErrorReasons, EveryOneGivenIsListed) {
  const std::regex call(
      "\\b(Error|FileError|Invalid|Cannot|RetryLater|Fail)\\(\\s*"
      "([A-Za-z_:>.()-]*::k[A-Za-z]+,\\s*|[a-z_.]+\\([a-z_]*\\)\\.?[a-z_()]*,\\s*|code,\\s*)?"
      "\"([A-Z]+(_[A-Z0-9]+)*)\"");
  std::set<std::string> given;
  for (const std::string floor : {"engine", "service"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(
             std::string(NIBBLE_SOURCE_DIR) + "/" + floor)) {
      if (entry.path().extension() != ".cc" && entry.path().extension() != ".h") continue;
      const std::string text = TextOf(entry.path());
      for (std::sregex_iterator it(text.begin(), text.end(), call), end; it != end; ++it) {
        given.insert((*it)[3]);
      }
    }
  }
  EXPECT_GT(given.size(), 50u) << "the pattern still finds them";
  for (const std::string& reason : given) {
    v1::ErrorReason value;
    const bool is_code = reason == "DEADLINE_EXCEEDED";
    EXPECT_TRUE(is_code || v1::ErrorReason_Parse(reason, &value)) << reason;
  }
}

}  // namespace
}  // namespace nibble
