// What the machine lends us: CPUs by affinity, and how much of them by the cgroup's quota.
#pragma once

#include <string>
#include <vector>

namespace nibble {

// The CPUs this process may run on, ascending; at least one.
std::vector<int> AllowedCpus();

// CPUs' worth of time that the process's control groups (v2, else v1) grant, the tightest of the
// group and its ancestors; 0 when there is no limit. `root` is the cgroup mount, `membership` the
// text of /proc/self/cgroup.
double CgroupCpuQuota(const std::string& root, const std::string& membership);

// The quota rounded up, at most the number of allowed CPUs; those when there is no quota.
int DefaultThreads();

}  // namespace nibble
