// The table of the house, and the small reader of directives that checks it. A directive is a line
// whose first character is '#': one inside a block comment or a raw string counts too.
#include "tests/house/rules.h"

#include <algorithm>
#include <array>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nibble::house {
namespace {

// Where an include may lead.
enum Room : unsigned {
  kDoor = 1,  // generated proto, grpc, prometheus
  kService = 2,
  kEngine = 4,
  kEngineInner = 8,  // what only the engine thread touches: not among the engine's public headers
  kKernels = 16,
  kDevice = 32,     // kernels/{cpu,cuda}/
  kReference = 64,  // the oracle, for tests
  kCuda = 128,      // CUDA's own headers
  kTests = 256,
  kElsewhere = 512,  // the standard library, absl and the like
};

struct Prefix {
  std::string_view prefix;
  unsigned rooms;
};

template <size_t N>
unsigned Match(const std::array<Prefix, N>& prefixes, std::string_view path) {
  for (const Prefix& row : prefixes) {
    if (path.substr(0, row.prefix.size()) == row.prefix) return row.rooms;
  }
  return 0;
}

// First match wins. A quoted include must match: any other would be relative to its own file, and
// hide where it leads.
constexpr std::array kIncluded = {
    Prefix{"nibble/v1/", kDoor},
    Prefix{"proto/", kDoor},
    Prefix{"google/", kDoor},
    Prefix{"grpc", kDoor},
    Prefix{"prometheus/", kDoor},
    Prefix{"civetweb", kDoor},
    Prefix{"CivetServer", kDoor},
    Prefix{"service/", kService},
    Prefix{"engine/scheduler/", kEngineInner},
    Prefix{"engine/kvcache/", kEngineInner},
    Prefix{"engine/sampling/", kEngineInner},
    Prefix{"engine/sequence.h", kEngineInner},
    Prefix{"engine/step.h", kEngineInner},
    Prefix{"engine/", kEngine},
    Prefix{"kernels/cpu/", kDevice},
    Prefix{"kernels/cuda/", kDevice},
    Prefix{"kernels/no_cuda/", kDevice},
    Prefix{"kernels/reference/", kReference},
    Prefix{"kernels/", kKernels},
    Prefix{"tests/", kTests},
    Prefix{"cuda", kCuda},
    Prefix{"cublas", kCuda},
    Prefix{"cub/", kCuda},
    Prefix{"cutlass/", kCuda},
    Prefix{"cute/", kCuda},
    Prefix{"thrust/", kCuda},
    Prefix{"nvml", kCuda},
    Prefix{"nvtx", kCuda},
    Prefix{"mma.h", kCuda},
    Prefix{"cooperative_groups", kCuda},
    Prefix{"absl/", kElsewhere},
    Prefix{"gtest/", kElsewhere},
    Prefix{"gmock/", kElsewhere},
    Prefix{"openssl/", kElsewhere},
    Prefix{"simdjson.h", kElsewhere},
    Prefix{"utf8proc.h", kElsewhere},
};

// The table of the house; first match wins.
constexpr unsigned kAllButCuda = ~static_cast<unsigned>(kCuda);
constexpr std::array kMayInclude = {
    Prefix{"proto/", kDoor | kElsewhere},
    Prefix{"service/bench", kDoor | kService | kEngine | kKernels | kElsewhere},
    Prefix{"service/", kDoor | kService | kEngine | kElsewhere},
    Prefix{"engine/", kEngine | kEngineInner | kKernels | kElsewhere},
    Prefix{"kernels/cuda/", kKernels | kDevice | kCuda | kElsewhere},
    Prefix{"kernels/reference/", kKernels | kReference | kElsewhere},
    Prefix{"kernels/", kKernels | kDevice | kElsewhere},
    Prefix{"tests/gpu/", ~0u},
    Prefix{"tests/support/cuda_emulator", ~0u},
    Prefix{"tests/", kAllButCuda},
};

bool StartsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

std::vector<std::string> Lines(std::string_view text) {
  std::vector<std::string> lines = absl::StrSplit(std::string(text), '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  return lines;
}

// Why a file at `path` may not have #include `operand` ("<x.h>", "\"x.h\""); empty if it may.
std::string WhyNotInclude(std::string_view path, std::string_view operand) {
  const bool quoted = StartsWith(operand, "\"");
  const size_t end = operand.find(quoted ? '"' : '>', 1);
  if ((!quoted && !StartsWith(operand, "<")) || end == std::string_view::npos) {
    return "an include names its file in quotes or angle brackets";
  }
  const std::string_view name = operand.substr(1, end - 1);
  if (name.find("..") != std::string_view::npos) return "an include has no ..";
  unsigned room = EndsWith(name, ".pb.h") ? unsigned{kDoor} : Match(kIncluded, name);
  if (room == 0 && quoted) return "a quoted include is a path from the root of the house";
  if (room == 0) room = kElsewhere;
  if (room & Match(kMayInclude, path)) return "";
  return absl::StrCat("the house's table forbids ", std::string(path), " to include it");
}

// Why a file at `path` may not have this directive; empty if it may.
std::string WhyNotDirective(std::string_view path, std::string_view line) {
  const std::string text(absl::StripAsciiWhitespace(std::string(line.substr(1))));
  const size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_");
  const std::string word = text.substr(0, end);
  if (word == "include") {
    return WhyNotInclude(path, std::string(absl::StripLeadingAsciiWhitespace(text.substr(7))));
  }
  static const std::set<std::string> kPlain = {"define", "undef", "pragma", "error"};
  if (kPlain.count(word) > 0) return "";
  if (StartsWith(path, "kernels/cpu/") || StartsWith(path, "kernels/cuda/")) return "";
  return "preprocessor conditionals stand only in kernels/cpu/ and kernels/cuda/";
}

// clang-format leaves only namespaces and definitions at column 0, so a function is what begins
// there and ends with a lone brace there.
void CheckFunctions(std::string_view path, const std::vector<std::string>& lines,
                    std::vector<std::string>* found) {
  constexpr size_t kMaxLines = 70;
  size_t begin = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i] == "}" && i - begin + 1 > kMaxLines) {
      found->push_back(absl::StrCat(std::string(path), ":", begin + 1, ": a function of ",
                                    i - begin + 1, " lines, at most ", kMaxLines));
    }
    if (!lines[i].empty() && std::string_view(" #}/").find(lines[i][0]) == std::string_view::npos) {
      begin = i;
    }
  }
}

}  // namespace

std::vector<std::string> CheckSource(std::string_view path, std::string_view text) {
  std::vector<std::string> found;
  const std::vector<std::string> lines = Lines(text);
  const bool roomy = StartsWith(path, "kernels/") || StartsWith(path, "tests/");
  const size_t max_lines = roomy ? 600 : 400;
  if (lines.size() > max_lines) {
    found.push_back(absl::StrCat(std::string(path), ":", lines.size(), ": the file has ",
                                 lines.size(), " lines, at most ", max_lines));
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string line(absl::StripAsciiWhitespace(lines[i]));
    if (!StartsWith(line, "#")) continue;
    const std::string why = WhyNotDirective(path, line);
    if (!why.empty()) {
      found.push_back(absl::StrCat(std::string(path), ":", i + 1, ": ", line, ": ", why));
    }
  }
  CheckFunctions(path, lines, &found);
  return found;
}

std::vector<std::string> CheckTopLevel(const std::vector<std::string>& names) {
  static const std::vector<std::string> kRequired = {"CMakeLists.txt", "proto",      "service",
                                                     "engine",         "kernels",    "deploy",
                                                     "tests",          "Dockerfile", "README.md"};
  static const std::set<std::string> kAllowed = {
      ".ci",  ".clang-format", ".clang-tidy", ".dockerignore",
      ".git", ".gitignore",    "LICENSE",     "CMakePresets.json"};
  static const std::set<std::string> kIgnoredByGit = {"build", "models", ".cache"};
  std::vector<std::string> found;
  for (const std::string& name : names) {
    if (std::count(kRequired.begin(), kRequired.end(), name) == 0 && kAllowed.count(name) == 0 &&
        kIgnoredByGit.count(name) == 0) {
      found.push_back(name + ": not a part of the house");
    }
  }
  for (const std::string& name : kRequired) {
    if (std::count(names.begin(), names.end(), name) == 0) found.push_back(name + ": missing");
  }
  return found;
}

std::vector<std::string> CheckLinks(std::string_view path, std::string_view text) {
  std::vector<std::string> above = {"grpc", "protobuf", "prometheus", "nibble_proto",
                                    "nibble_service"};
  if (StartsWith(path, "kernels/")) {
    above.insert(above.end(), {"nibble_base", "nibble_loader", "nibble_tokenizer",
                               "nibble_sampling", "nibble_model", "nibble_engine"});
  }
  std::vector<std::string> found;
  const std::vector<std::string> lines = Lines(text);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string code = absl::AsciiStrToLower(lines[i].substr(0, lines[i].find('#')));
    for (const std::string& name : above) {
      if (code.find(name) == std::string::npos) continue;
      found.push_back(absl::StrCat(std::string(path), ":", i + 1, ": ", name, " is above"));
    }
  }
  return found;
}

}  // namespace nibble::house
