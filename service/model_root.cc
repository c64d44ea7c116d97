// The check is on canonical paths: what realpath says lies under the root, or is refused.
#include "service/model_root.h"

#include <sys/stat.h>

#include <climits>
#include <cstdlib>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "engine/status.h"

namespace nibble {
namespace {

// "" when there is no such file.
std::string Canonical(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
  return real == nullptr ? "" : real.get();
}

absl::Status BadSource(const std::string& source, const std::string& what) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_SOURCE",
               absl::StrCat("source \"", source, "\": ", what), "source");
}

}  // namespace

absl::StatusOr<ModelRoot> ModelRoot::Open(const std::string& directory) {
  ModelRoot result;
  result.root_ = Canonical(directory);
  if (result.root_.empty()) {
    return Error(absl::StatusCode::kNotFound, "CANNOT_READ_FILE",
                 absl::StrCat("--model-root: no directory ", directory));
  }
  struct stat info;
  if (stat(result.root_.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return Error(absl::StatusCode::kInvalidArgument, "BAD_FILE",
                 absl::StrCat("--model-root: ", directory, " is not a directory"));
  }
  return result;
}

absl::StatusOr<std::string> ModelRoot::Resolve(std::string_view source_view) const {
  const std::string source(source_view);
  if (!enabled()) {
    return Error(absl::StatusCode::kUnimplemented, "MODEL_LOADING_OFF",
                 "this server loads no models by RPC: it was started without --model-root");
  }
  if (source.empty()) return BadSource(source, "required");
  if (source.size() >= PATH_MAX || source.find('\0') != std::string::npos) {
    return BadSource("…", "not a path");
  }
  if (source.front() == '/') return BadSource(source, "must be relative to --model-root");
  for (const absl::string_view part : absl::StrSplit(source, '/')) {
    if (part == "..") return BadSource(source, "\"..\" is not allowed");
  }
  const std::string path = Canonical(absl::StrCat(root_, "/", source));
  if (path.empty()) {
    return Error(absl::StatusCode::kNotFound, "SOURCE_NOT_FOUND",
                 absl::StrCat("source \"", source, "\": no such file under --model-root"),
                 "source");
  }
  if (path != root_ && !absl::StartsWith(path, root_ == "/" ? "/" : root_ + "/")) {
    return BadSource(source, "leads out of --model-root");
  }
  return path;
}

std::string ModelRoot::Scrub(std::string_view message) const {
  std::string text(message);
  if (!enabled() || root_ == "/") return text;
  return absl::StrReplaceAll(text, {{root_ + "/", ""}, {root_, "--model-root"}});
}

}  // namespace nibble
