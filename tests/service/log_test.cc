// Log lines: JSON, in order, bounded.
#include "service/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include <cstdio>
#include <string>
#include <thread>

namespace nibble {
namespace {

std::vector<std::string> Lines(std::FILE* file) {
  std::rewind(file);
  std::vector<std::string> lines;
  std::string line;
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) {
    if (c == '\n') {
      lines.push_back(line);
      line.clear();
    } else {
      line += static_cast<char>(c);
    }
  }
  return lines;
}

TEST(Log, WritesOneJsonObjectPerLineAndSkipsWhatIsBelowItsLevel) {
  std::FILE* file = std::tmpfile();
  {
    Log log(file, LogLevel::kInfo);
    JsonLine fields;
    fields.Add("request_id", "abc");
    log.Write(LogLevel::kDebug, "unseen");
    log.Write(LogLevel::kInfo, "request", fields);
    log.Write(LogLevel::kError, "plain");
    log.Flush();
  }
  const std::vector<std::string> lines = Lines(file);
  std::fclose(file);
  ASSERT_EQ(lines.size(), 2u);
  simdjson::dom::parser parser;
  const simdjson::dom::element first = parser.parse(lines[0]);
  EXPECT_EQ(std::string_view(first["event"]), "request");
  EXPECT_EQ(std::string_view(first["level"]), "info");
  EXPECT_EQ(std::string_view(first["request_id"]), "abc");
  EXPECT_THAT(std::string(std::string_view(first["time"])), testing::EndsWith("Z"));
  EXPECT_EQ(std::string_view(simdjson::dom::element(parser.parse(lines[1]))["event"]), "plain");
}

TEST(Log, DropsAndCountsWhatASlowReaderCannotTake) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::FILE* writer = fdopen(ends[1], "w");
  std::string seen;
  {
    Log log(writer, LogLevel::kInfo, 8);
    JsonLine fat;
    fat.Add("text", std::string(60000, 'x'));
    // Nobody reads yet: the writing thread blocks in the pipe, the queue fills, the rest is
    // dropped.
    for (int i = 0; i < 100; ++i) log.Write(LogLevel::kInfo, "fat", fat);
    std::thread reader([&] {
      char buffer[65536];
      for (ssize_t got = read(ends[0], buffer, sizeof buffer); got > 0;
           got = read(ends[0], buffer, sizeof buffer)) {
        seen.append(buffer, static_cast<size_t>(got));
      }
    });
    log.Flush();
    log.Write(LogLevel::kInfo, "later");
    log.Flush();
    std::fclose(writer);
    reader.join();
  }
  close(ends[0]);
  EXPECT_THAT(seen, testing::HasSubstr("\"event\":\"log_lines_dropped\",\"count\":"));
  EXPECT_THAT(seen, testing::HasSubstr("\"event\":\"later\""));
}

}  // namespace
}  // namespace nibble
