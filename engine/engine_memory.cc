// How much memory this process may use, as the kernel's files tell: cgroup v2, cgroup v1, the
// machine.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "engine/engine_core.h"

namespace nibble {
namespace {

// A number alone in a file; absent, "max" or anything else: no limit.
int64_t LimitIn(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  int64_t limit = 0;
  if (!(file >> word) || !absl::SimpleAtoi(word, &limit) || limit <= 0) return INT64_MAX;
  return limit;
}

// The limit of a cgroup and of all above it. In a container the path that /proc names may lie
// outside of what is mounted; the mount's own root is then the container's.
int64_t LimitAbove(const std::string& mount, std::string path, const std::string& file) {
  int64_t limit = LimitIn(mount + "/" + file);
  while (path.size() > 1) {
    limit = std::min(limit, LimitIn(mount + path + "/" + file));
    path.resize(path.rfind('/'));
  }
  return limit;
}

// /proc/self/cgroup has lines "0::PATH" (v2) and "7:memory,cpu:PATH" (v1).
int64_t CgroupLimit(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  int64_t limit = INT64_MAX;
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3 || parts[2].empty() || parts[2][0] != '/') continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    if (parts[1].empty()) {
      limit = std::min(limit, LimitAbove(root + "/sys/fs/cgroup", parts[2], "memory.max"));
    } else if (std::count(controllers.begin(), controllers.end(), "memory") > 0) {
      limit = std::min(
          limit, LimitAbove(root + "/sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes"));
    }
  }
  return limit;
}

// "MemTotal:  24656672 kB"
int64_t MachineMemory(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string key;
  int64_t kilobytes = 0;
  if (!(file >> key >> kilobytes) || key != "MemTotal:") return INT64_MAX;
  return kilobytes * 1024;
}

}  // namespace

int64_t DefaultMemoryBytes(const std::string& root) {
  return std::min(CgroupLimit(root), MachineMemory(root)) / 5 * 4;
}

}  // namespace nibble
