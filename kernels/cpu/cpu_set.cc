// Reads the affinity mask and the cgroup files.
#include "kernels/cpu/cpu_set.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace nibble {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The tighter of two limits, 0 being none.
double Tighter(double a, double b) {
  if (a <= 0) return b;
  return b <= 0 ? a : std::min(a, b);
}

double Ratio(double quota, double period) { return quota > 0 && period > 0 ? quota / period : 0; }

// "150000 100000" is one and a half CPUs, "max 100000" no limit.
double QuotaV2(const std::string& directory) {
  std::istringstream text(ReadAll(directory + "/cpu.max"));
  std::string quota;
  double period = 0;
  if (!(text >> quota >> period) || quota == "max") return 0;
  return Ratio(std::strtod(quota.c_str(), nullptr), period);
}

double QuotaV1(const std::string& directory) {
  const std::string quota = ReadAll(directory + "/cpu.cfs_quota_us");
  const std::string period = ReadAll(directory + "/cpu.cfs_period_us");
  return Ratio(std::strtod(quota.c_str(), nullptr), std::strtod(period.c_str(), nullptr));
}

// The limits of `root` + path and of every directory above it.
template <typename Quota>
double TightestUpwards(const std::string& root, std::string path, Quota quota) {
  double tightest = 0;
  while (true) {
    tightest = Tighter(tightest, quota(root + path));
    const size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return tightest;
    path.resize(slash);
  }
}

bool IsCpuController(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  // The process's own mask: the calling thread's may be narrower.
  if (sched_getaffinity(getpid(), sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

double CgroupCpuQuota(const std::string& root, const std::string& membership) {
  double tightest = 0;
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');  // "hierarchy:controllers:path"
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      tightest = Tighter(tightest, TightestUpwards(root, path, QuotaV2));
    } else if (IsCpuController(controllers)) {
      tightest = Tighter(tightest, TightestUpwards(root + "/cpu", path, QuotaV1));
    }
  }
  return tightest;
}

int DefaultThreads() {
  const int cpus = static_cast<int>(AllowedCpus().size());
  const double quota = CgroupCpuQuota("/sys/fs/cgroup", ReadAll("/proc/self/cgroup"));
  if (quota <= 0) return cpus;
  return std::clamp(static_cast<int>(std::ceil(std::min(quota, 1e6))), 1, cpus);
}

}  // namespace nibble
