// The house stands: every source file, the top level and the links obey its table; and planted
// faults are found, so that silence means something.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/house/rules.h"

namespace nibble::house {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const fs::path kRoot = NIBBLE_SOURCE_DIR;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Relative paths of all C++ and CUDA files in the rooms.
std::vector<std::string> SourceFiles() {
  const std::vector<std::string> extensions = {".h", ".cc", ".inl", ".cu", ".cuh"};
  std::vector<std::string> files;
  for (const char* room : {"proto", "service", "engine", "kernels", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / room)) {
      const std::string extension = entry.path().extension();
      if (std::count(extensions.begin(), extensions.end(), extension) == 0) continue;
      files.push_back(fs::relative(entry.path(), kRoot));
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> Include(const std::string& path, const std::string& operand) {
  return CheckSource(path, "// Duty.\n#include " + operand + "\n");
}

TEST(House, EveryFileObeysTheTable) {
  const std::vector<std::string> files = SourceFiles();
  ASSERT_GT(files.size(), 20u);
  ASSERT_EQ(std::count(files.begin(), files.end(), "engine/status.h"), 1);
  for (const std::string& file : files) {
    EXPECT_THAT(CheckSource(file, ReadFile(kRoot / file)), IsEmpty());
  }
}

TEST(House, HasExactlyItsTopLevel) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kRoot)) names.push_back(entry.path().filename());
  EXPECT_THAT(CheckTopLevel(names), IsEmpty());
}

TEST(House, LinksPointDown) {
  for (const char* file :
       {"engine/CMakeLists.txt", "kernels/CMakeLists.txt", "kernels/cuda/CMakeLists.txt"}) {
    const std::string text = ReadFile(kRoot / file);
    ASSERT_FALSE(text.empty()) << file;
    EXPECT_THAT(CheckLinks(file, text), IsEmpty());
  }
}

TEST(Rules, FindAnIncludeThatPointsBack) {
  EXPECT_THAT(Include("engine/a.cc", "\"service/b.h\""),
              ElementsAre("engine/a.cc:2: #include \"service/b.h\": the house's table forbids "
                          "engine/a.cc to include it"));
  const std::vector<std::pair<std::string, std::string>> arrows_back = {
      {"kernels/a.h", "\"engine/status.h\""},
      {"kernels/cpu/a.cc", "<engine/status.h>"},
      {"kernels/a.cc", "\"service/options.h\""},
      {"kernels/a.cc", "<cuda_runtime.h>"},
      {"kernels/a.cc", "\"kernels/reference/matmul.h\""},
      {"kernels/a.cc", "\"tests/support/fakes.h\""},
      {"engine/a.h", "<grpcpp/grpcpp.h>"},
      {"engine/a.h", "<google/protobuf/message.h>"},
      {"engine/a.h", "\"nibble/v1/inference.grpc.pb.h\""},
      {"engine/a.h", "\"inference.pb.h\""},
      {"engine/a.h", "<prometheus/registry.h>"},
      {"engine/loader/a.cc", "\"kernels/cpu/pool.h\""},
      {"engine/a.cc", "\"kernels/reference/matmul.h\""},
      {"engine/a.cc", "\"tests/support/fakes.h\""},
      {"service/a.cc", "\"kernels/backend.h\""},
      {"service/a.cc", "\"kernels/cpu/pool.h\""},
      {"service/bench_kernels.cc", "\"kernels/cpu/pool.h\""},
      {"service/a.cc", "\"engine/scheduler/planner.h\""},
      {"service/a.cc", "\"engine/step.h\""},
      {"proto/a.h", "\"engine/request.h\""},
      {"tests/engine/a_test.cc", "<cuda.h>"},
  };
  for (const auto& [path, operand] : arrows_back) {
    EXPECT_EQ(Include(path, operand).size(), 1u) << path << " " << operand;
  }
}

TEST(Rules, FindAnIncludeThatHidesWhereItLeads) {
  EXPECT_THAT(Include("engine/stats.h", "\"memory/ledger.h\""), ElementsAre(HasSubstr("root")));
  EXPECT_THAT(Include("engine/stats.h", "\"status.h\""), ElementsAre(HasSubstr("root")));
  EXPECT_THAT(Include("engine/a.h", "\"../service/b.h\""), ElementsAre(HasSubstr("no ..")));
  EXPECT_THAT(Include("engine/a.h", "<engine/../service/b.h>"), ElementsAre(HasSubstr("no ..")));
  EXPECT_THAT(Include("engine/a.h", "HEADER"), ElementsAre(HasSubstr("names its file")));
  EXPECT_THAT(Include("engine/a.h", "\"engine/b.h"), ElementsAre(HasSubstr("names its file")));
  EXPECT_EQ(CheckSource("engine/a.h", "  #  include   \"service/b.h\"  // why not\r\n").size(), 1u);
  EXPECT_EQ(CheckSource("engine/a.h", "#include\"service/b.h\"").size(), 1u);
  EXPECT_EQ(CheckSource("engine/a.h", "#include_next \"service/b.h\"").size(), 1u);
}

TEST(Rules, AllowWhatTheTableAllows) {
  const std::vector<std::pair<std::string, std::string>> arrows_down = {
      {"service/a.cc", "<grpcpp/grpcpp.h>"},
      {"service/a.cc", "\"nibble/v1/inference.grpc.pb.h\""},
      {"service/a.cc", "\"engine/engine.h\""},
      {"service/a.cc", "\"service/options.h\""},
      {"service/bench_kernels.cc", "\"kernels/backend.h\""},
      {"engine/a.cc", "\"engine/scheduler/planner.h\""},
      {"engine/a.cc", "\"kernels/backend.h\""},
      {"engine/a.cc", "\"absl/status/status.h\""},
      {"engine/loader/a.cc", "\"simdjson.h\""},
      {"engine/a.cc", "<vector>"},
      {"kernels/backend.cc", "\"kernels/cpu/pool.h\""},
      {"kernels/cpu/a.cc", "<immintrin.h>"},
      {"kernels/cuda/a.cu", "<cuda_runtime.h>"},
      {"kernels/reference/a.cc", "\"kernels/reference/b.h\""},
      {"tests/kernels/a_test.cc", "\"kernels/reference/matmul.h\""},
      {"tests/service/a_test.cc", "<grpcpp/grpcpp.h>"},
      {"tests/gpu/a.cu", "<cuda_runtime.h>"},
      {"tests/support/cuda_emulator.h", "<cuda_runtime.h>"},
  };
  for (const auto& [path, operand] : arrows_down) EXPECT_THAT(Include(path, operand), IsEmpty());
}

TEST(Rules, FindAConditionalOutsideTheDeviceFolders) {
  for (const char* directive : {"#if 1", "#ifdef A", "#ifndef A", "#elif A", "#elifdef A", "#else",
                                "#endif", "  # if A", "#if(A)"}) {
    const std::string text = std::string("int a;\n") + directive + "\n";
    EXPECT_THAT(CheckSource("engine/a.cc", text), ElementsAre(HasSubstr("engine/a.cc:2: #")));
    EXPECT_EQ(CheckSource("kernels/a.cc", text).size(), 1u) << directive;
    EXPECT_EQ(CheckSource("tests/a_test.cc", text).size(), 1u) << directive;
    EXPECT_THAT(CheckSource("kernels/cpu/a.cc", text), IsEmpty());
    EXPECT_THAT(CheckSource("kernels/cuda/a.cu", text), IsEmpty());
  }
  EXPECT_THAT(CheckSource("engine/a.h", "#pragma once\n#define A 1\n#undef A\n// #if 1\n"),
              IsEmpty());
}

std::string Repeat(const std::string& line, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += line;
  return text;
}

TEST(Rules, FindAFileThatIsTooLong) {
  EXPECT_THAT(CheckSource("engine/a.cc", Repeat("//\n", 400)), IsEmpty());
  EXPECT_THAT(CheckSource("engine/a.cc", Repeat("//\n", 401)),
              ElementsAre("engine/a.cc:401: the file has 401 lines, at most 400"));
  for (const char* path : {"kernels/a.cc", "tests/a_test.cc"}) {
    EXPECT_THAT(CheckSource(path, Repeat("//\n", 600)), IsEmpty());
    EXPECT_EQ(CheckSource(path, Repeat("//\n", 601)).size(), 1u);
  }
}

TEST(Rules, FindAFunctionThatIsTooLong) {
  const std::string before = "namespace nibble {\n\n";
  EXPECT_THAT(CheckSource("engine/a.cc", before + "void A() {\n" + Repeat("  B();\n", 68) + "}\n"),
              IsEmpty());
  EXPECT_THAT(CheckSource("engine/a.cc", before + "void A() {\n" + Repeat("  B();\n", 69) + "}\n"),
              ElementsAre("engine/a.cc:3: a function of 71 lines, at most 70"));
  EXPECT_THAT(CheckSource("engine/a.h", "struct A {\n" + Repeat("  int b;\n", 99) + "};\n"),
              IsEmpty());
}

TEST(Rules, FindWhatTheTopLevelHasTooMuchAndTooLittle) {
  const std::vector<std::string> whole = {"CMakeLists.txt", "proto",  "service",    "engine",
                                          "kernels",        "deploy", "tests",      "Dockerfile",
                                          "README.md",      ".git",   ".clang-tidy"};
  EXPECT_THAT(CheckTopLevel(whole), IsEmpty());
  std::vector<std::string> wrong = whole;
  wrong[3] = "utils";
  EXPECT_THAT(CheckTopLevel(wrong),
              ElementsAre("utils: not a part of the house", "engine: missing"));
}

TEST(Rules, FindALinkThatPointsUp) {
  EXPECT_THAT(CheckLinks("engine/CMakeLists.txt", "a()\nfind_package(gRPC)\n"),
              ElementsAre("engine/CMakeLists.txt:2: grpc is above"));
  EXPECT_THAT(CheckLinks("engine/CMakeLists.txt", "nibble_base # no gRPC here\n"), IsEmpty());
  EXPECT_THAT(CheckLinks("kernels/CMakeLists.txt", "target_link_libraries(x nibble_base)\n"),
              ElementsAre("kernels/CMakeLists.txt:1: nibble_base is above"));
}

}  // namespace
}  // namespace nibble::house
