// The default budget, from files as kernels write them.
#include <gtest/gtest.h>

#include "engine/engine_core.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

class DefaultMemory : public ::testing::Test {
 protected:
  DefaultMemory() { Write("proc/meminfo", "MemTotal:       1000000 kB\nMemFree: 5 kB\n"); }

  void Write(const std::string& path, const std::string& text) { directory_.Write(path, text); }
  const std::string& Root() const { return directory_.path(); }

  testing::TempDir directory_;
};

TEST_F(DefaultMemory, IsFourFifthsOfTheMachineWithoutALimit) {
  EXPECT_EQ(DefaultMemoryBytes(Root()), 1000000LL * 1024 / 5 * 4);
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/memory.max", "max\n");
  EXPECT_EQ(DefaultMemoryBytes(Root()), 1000000LL * 1024 / 5 * 4);
}

TEST_F(DefaultMemory, TakesTheSmallestLimitAboveThisProcess) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/b/memory.max", "500000\n");
  Write("sys/fs/cgroup/a/memory.max", "100000\n");
  EXPECT_EQ(DefaultMemoryBytes(Root()), 80000);
}

TEST_F(DefaultMemory, ReadsAContainersOwnMount) {
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "200000\n");
  EXPECT_EQ(DefaultMemoryBytes(Root()), 160000);
}

TEST_F(DefaultMemory, ReadsVersionOne) {
  Write("proc/self/cgroup", "12:cpu:/x\n9:cpuset,memory:/docker/1\n");
  Write("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "300000\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(DefaultMemoryBytes(Root()), 240000);
}

TEST_F(DefaultMemory, OfThisMachineIsPositive) {
  EXPECT_GT(DefaultMemoryBytes(), 0);
  EXPECT_LT(DefaultMemoryBytes(), INT64_MAX / 5 * 4);
}

}  // namespace
}  // namespace nibble
