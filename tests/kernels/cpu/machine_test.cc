// What the backend takes from the machine: CPU quota, memory, an ISA row; and what its object files
// must not give to it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_join.h"
#include "kernels/cpu/cpu_set.h"
#include "kernels/cpu/memory.h"
#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// A cgroup mount of our own making.
class CgroupTree : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("cgroup" + std::to_string(getpid()));
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  double Quota(const std::string& membership) { return CgroupCpuQuota(root_.string(), membership); }
  fs::path root_;
};

TEST_F(CgroupTree, NoFilesMeanNoQuota) { EXPECT_EQ(Quota("0::/a/b\n"), 0); }

TEST_F(CgroupTree, ReadsVersion2AndTakesTheTightestAncestor) {
  Write("cpu.max", "max 100000\n");
  Write("a/cpu.max", "150000 100000\n");
  Write("a/b/cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(Quota("0::/a/b\n"), 1.5);
  EXPECT_DOUBLE_EQ(Quota("0::/\n"), 0);
}

TEST_F(CgroupTree, ReadsVersion1OfTheCpuController) {
  Write("cpu/job/cpu.cfs_quota_us", "250000\n");
  Write("cpu/job/cpu.cfs_period_us", "100000\n");
  Write("cpu/cpu.cfs_quota_us", "-1\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(Quota("5:cpuset:/x\n4:cpu,cpuacct:/job\n"), 2.5);
}

TEST_F(CgroupTree, GarbageMeansNoQuota) {
  Write("cpu.max", "lots");
  Write("a/cpu.max", "10 0");
  EXPECT_EQ(Quota("0::/a\nnonsense\n:\n::\n"), 0);
}

TEST(CpuMemory, IsZeroedAlignedAndWritable) {
  for (const int64_t bytes : {int64_t{1}, int64_t{4097}, int64_t{9} << 20}) {
    absl::StatusOr<Buffer> buffer = AllocateResident(bytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 4096, 0u);
    for (int64_t i = 0; i < bytes; i += 501) ASSERT_EQ(buffer->data()[i], 0);
    buffer->data()[bytes - 1] = 7;
  }
}

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(CpuMemory, IsResidentFromTheStartAndGivenBackAtTheEnd) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  const int64_t before = ResidentBytes();
  {
    const absl::StatusOr<Buffer> buffer = AllocateResident(kBytes);
    ASSERT_TRUE(buffer.ok());
    EXPECT_GE(ResidentBytes() - before, kBytes * 95 / 100);
  }
  EXPECT_LE(ResidentBytes() - before, kBytes / 20);
}

TEST(CpuMemory, NothingIsAnEmptyBuffer) {
  const absl::StatusOr<Buffer> buffer = AllocateResident(0);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->data(), nullptr);
}

TEST(CpuMemory, RefusalSaysHowMuchWasAsked) {
  for (const int64_t bytes : {int64_t{1} << 45, int64_t{1} << 62, int64_t{-1}}) {
    const absl::StatusOr<Buffer> buffer = AllocateResident(bytes);
    ASSERT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(buffer.status().message().find(absl::StrCat(bytes)), absl::string_view::npos);
  }
}

TEST(Isa, UnknownNamesAreRefused) {
  BackendOptions options;
  options.cpu_isa = "mmx";
  const absl::Status status = MakeBackend(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& name : IsaNames()) {
    EXPECT_NE(status.message().find(name), absl::string_view::npos) << status;
  }
}

TEST(Isa, ForcedRowsAreUsedAndTheBestIsTheDefault) {
  for (const IsaTable* isa : SupportedIsas()) EXPECT_EQ(Cpu(isa->name, 1)->isa(), isa->name);
  EXPECT_EQ(Cpu("", 1)->isa(), SupportedIsas().back()->name);
}

TEST(Isa, RowsThatTheCpuLacksAreRefused) {
  std::vector<std::string> lacking = IsaNames();
  for (const IsaTable* isa : SupportedIsas()) std::erase(lacking, isa->name);
  if (lacking.empty()) GTEST_SKIP() << "this CPU has every row";
  for (const std::string& name : lacking) {
    BackendOptions options;
    options.cpu_isa = name;
    const absl::Status status = MakeBackend(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(name), absl::string_view::npos) << status;
  }
}

// Other tests run on every row of this machine; this one names those that none of them ran.
TEST(Isa, EveryRowIsTested) {
  std::vector<std::string> lacking = IsaNames();
  for (const IsaTable* isa : SupportedIsas()) std::erase(lacking, isa->name);
  if (!lacking.empty()) GTEST_SKIP() << "not run, this CPU lacks: " << absl::StrJoin(lacking, ", ");
}

TEST(Compute, TheCpuDecidesWhatAutoIs) {
  for (const IsaTable* isa : SupportedIsas()) {
    const Compute chosen = Cpu(isa->name, 1, Compute::kAuto)->compute();
    EXPECT_EQ(chosen, AutoCompute(*isa)) << isa->name;
    if (isa == &kAmxTable) {
      EXPECT_EQ(chosen, Compute::kBf16);
    } else if (isa != &kAvx512Bf16Table) {
      EXPECT_EQ(chosen, Compute::kFp32) << isa->name;
    }
    for (const Compute asked : {Compute::kFp32, Compute::kBf16, Compute::kInt8}) {
      EXPECT_EQ(Cpu(isa->name, 1, asked)->compute(), asked);
    }
  }
}

TEST(MakeBackend, DevicesAreChosenByName) {
  BackendOptions options;
  options.device = "auto";
  options.num_threads = 1;
  const absl::StatusOr<std::unique_ptr<Backend>> automatic = MakeBackend(options);
  ASSERT_TRUE(automatic.ok()) << automatic.status();
  options.device = "tpu";
  EXPECT_EQ(MakeBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.device = "cpu";
  options.num_threads = -1;
  EXPECT_EQ(MakeBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(MakeBackend, ABuildWithoutCudaSaysSo) {
  BackendOptions options;
  options.device = "cuda:0";
  const absl::StatusOr<std::unique_ptr<Backend>> gpu = MakeBackend(options);
  if (gpu.ok()) GTEST_SKIP() << "this build has CUDA";
  EXPECT_EQ(gpu.status().code(), absl::StatusCode::kUnavailable);
}

// A weak symbol compiled for AVX-512 and kept by the linker would crash older CPUs: `nm` must show
// none, and nothing global but the table.
TEST(IsaObjects, HoldNoWeakSymbolAndDefineOnlyTheirTable) {
  for (const std::string isa :
       {"avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx"}) {
    const std::string object = absl::StrCat(NIBBLE_BINARY_DIR, "/kernels/CMakeFiles/",
                                            "nibble_kernels.dir/cpu/isa_", isa, ".cc.o");
    ASSERT_TRUE(fs::exists(object)) << object;
    FILE* nm = popen(("nm " + object).c_str(), "r");
    ASSERT_NE(nm, nullptr);
    char line[4096];
    int tables = 0;
    while (fgets(line, sizeof(line), nm) != nullptr) {
      char kind = 0;
      char name[4000];
      if (std::sscanf(line, "%*x %c %3999s", &kind, name) != 2 &&
          std::sscanf(line, " %c %3999s", &kind, name) != 2) {
        continue;
      }
      const std::string symbol = name;
      EXPECT_EQ(std::string("wWvVuC").find(kind), std::string::npos) << isa << ": " << line;
      const bool global_definition = kind >= 'A' && kind <= 'Z' && kind != 'U';
      if (global_definition) {
        EXPECT_NE(symbol.find("Table"), std::string::npos) << isa << ": " << line;
        ++tables;
      }
    }
    EXPECT_EQ(pclose(nm), 0);
    EXPECT_GE(tables, 1) << isa;
  }
}

}  // namespace
}  // namespace nibble
