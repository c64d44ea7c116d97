// What the bench of kernels takes for this CPU's peaks: loops that run, numbers that are right, and
// object files that leave nothing of their ISA behind.
#include "kernels/peaks.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/half.h"

namespace nibble {
namespace {

TEST(CpuUnits, EveryPresentOneRunsOnEveryThread) {
  CpuPeaks peaks(2);
  int present = 0;
  for (const CpuUnit& unit : CpuUnits()) {
    EXPECT_GT(unit.operations_per_step, 0) << unit.name;
    if (!unit.present) continue;
    ++present;
    peaks.Multiply(unit, 3);
    // Another number of steps is another sum: the work is not dropped. (Tiles hold zeros.)
    const bool tiles = std::string(unit.name).find("amx") == 0;
    EXPECT_TRUE(tiles || unit.run(1) != unit.run(2)) << unit.name;
  }
  if (present == 0) GTEST_SKIP() << "this CPU has no AVX2";
}

TEST(CpuUnits, EveryRowAndModeIsBoundByAKnownUnit) {
  std::set<std::string_view> names = {""};
  for (const CpuUnit& unit : CpuUnits()) names.insert(unit.name);
  for (const char* isa :
       {"scalar", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx"}) {
    for (const Compute compute : {Compute::kFp32, Compute::kBf16, Compute::kInt8}) {
      const std::string_view unit = UnitOf(isa, compute);
      EXPECT_EQ(names.count(unit), 1u) << isa << " " << Name(compute) << ": " << unit;
      EXPECT_EQ(unit.empty(), std::string(isa) == "scalar");
    }
  }
  EXPECT_EQ(UnitOf("avx2_vnni", Compute::kInt8), "vnni_256");
  EXPECT_EQ(UnitOf("avx512", Compute::kInt8), "madd_512");
  EXPECT_EQ(UnitOf("avx512_vnni", Compute::kBf16), "fma_512");
  EXPECT_EQ(UnitOf("amx", Compute::kFp32), "fma_512");
}

TEST(CpuIsaNames, BeginWithScalarAndCpuHasANameAndCaches) {
  ASSERT_FALSE(CpuIsaNames().empty());
  EXPECT_EQ(CpuIsaNames()[0], "scalar");
  EXPECT_NE(CpuName().find("family"), std::string::npos);
  EXPECT_GE(ReadCpuCaches().l2, 1 << 16);
  EXPECT_GE(ReadCpuCaches().last, ReadCpuCaches().l2);
}

TEST(CpuPeaks, DequantizesToTheNearestBf16) {
  constexpr int64_t kRows = 33, kColumns = 192;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(kRows * kColumns);
  for (float& value : values) value = normal(random);
  const absl::StatusOr<FourBitMatrix> matrix =
      QuantizeFourBit(values, kRows, kColumns, {.format = WeightFormat::kNf4});
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  std::vector<float> exact(values.size());
  DequantizeFourBit(*matrix, 0, exact);
  std::vector<uint16_t> got(values.size());
  CpuPeaks(2).DequantizeToBf16(*matrix, got.data());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], F32ToBf16(exact[i])) << "at " << i << ": " << exact[i];
  }
}

TEST(CpuPeaks, RunsEveryUnitOnceAndReadsToTheEnd) {
  CpuPeaks peaks(2);
  std::vector<int> runs(1000);
  peaks.Run(1000, [&](int64_t unit) { ++runs[static_cast<size_t>(unit)]; });
  EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), 1000);
  // Exactly as long as what is read: a sanitizer sees a byte too many.
  constexpr size_t kBytes = 3 << 16;
  char* const memory = static_cast<char*>(std::aligned_alloc(64, kBytes));
  std::fill_n(memory, kBytes, 1);
  peaks.Read(memory, kBytes);
  std::free(memory);
}

// As for the ISA rows (machine_test.cc): a weak symbol would be the one that the linker keeps.
TEST(PeakObjects, HoldNoWeakSymbol) {
  for (const std::string isa :
       {"avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx"}) {
    const std::string object = absl::StrCat(NIBBLE_BINARY_DIR, "/kernels/CMakeFiles/",
                                            "nibble_kernels.dir/cpu/peaks_", isa, ".cc.o");
    ASSERT_TRUE(std::filesystem::exists(object)) << object;
    FILE* nm = popen(("nm " + object).c_str(), "r");
    ASSERT_NE(nm, nullptr);
    char line[4096];
    int functions = 0;
    while (fgets(line, sizeof(line), nm) != nullptr) {
      char kind = 0;
      if (std::sscanf(line, "%*x %c", &kind) != 1 && std::sscanf(line, " %c", &kind) != 1) continue;
      EXPECT_EQ(std::string("wWvVu").find(kind), std::string::npos) << isa << ": " << line;
      functions += kind == 'T';
    }
    EXPECT_EQ(pclose(nm), 0);
    EXPECT_GE(functions, 1) << isa;
  }
}

}  // namespace
}  // namespace nibble
