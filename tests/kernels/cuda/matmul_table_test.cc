#include "kernels/cuda/matmul_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

namespace nibble::cuda {
namespace {

// Bounds that differ everywhere, so that a mixed-up one shows.
constexpr MatMulTable kTable = {"test",   90,      1000,   {7, 8},  {20, 30},
                                {40, 50}, {9, 11}, {3, 5}, {13, 17}};

MatMulPath Choose(int64_t rows, int64_t n, bool fits = true, bool batch_invariant = false) {
  return ChoosePath(kTable, rows, n, 10, fits, batch_invariant);
}

TEST(ChoosePath, TakesTheFirstPathWhoseBoundHoldsTheRows) {
  struct Case {
    int64_t n;
    int64_t last[3];  // rows of stream, staged, hopper
  };
  for (const Case& c : {Case{99, {7, 20, 40}}, Case{100, {8, 30, 50}}, Case{5000, {8, 30, 50}}}) {
    EXPECT_EQ(Choose(1, c.n), MatMulPath::kStream);
    EXPECT_EQ(Choose(c.last[0], c.n), MatMulPath::kStream) << c.n;
    EXPECT_EQ(Choose(c.last[0] + 1, c.n), MatMulPath::kStaged) << c.n;
    EXPECT_EQ(Choose(c.last[1], c.n), MatMulPath::kStaged) << c.n;
    EXPECT_EQ(Choose(c.last[1] + 1, c.n), MatMulPath::kHopper) << c.n;
    EXPECT_EQ(Choose(c.last[2], c.n), MatMulPath::kHopper) << c.n;
    EXPECT_EQ(Choose(c.last[2] + 1, c.n), MatMulPath::kUnpack) << c.n;
    EXPECT_EQ(Choose(100000, c.n), MatMulPath::kUnpack) << c.n;
  }
}

TEST(ChoosePath, GroupsThatDoNotFitUnitsAreGeneralOrUnpacked) {
  EXPECT_EQ(Choose(1, 99, false), MatMulPath::kGeneral);
  EXPECT_EQ(Choose(9, 99, false), MatMulPath::kGeneral);
  EXPECT_EQ(Choose(10, 99, false), MatMulPath::kUnpack);
  EXPECT_EQ(Choose(11, 100, false), MatMulPath::kGeneral);
  EXPECT_EQ(Choose(12, 100, false), MatMulPath::kUnpack);
}

TEST(ChoosePath, BatchInvarianceFixesOnePathForAnyNumberOfRows) {
  for (const int64_t n : {1, 99, 100, 5000}) {
    for (int64_t rows = 1; rows <= 70; ++rows) {
      EXPECT_EQ(Choose(rows, n, true, true), MatMulPath::kStaged);
      EXPECT_EQ(Choose(rows, n, false, true), MatMulPath::kGeneral);
    }
  }
}

TEST(TakesOwnKernel, UpToTheTablesBoundOfTheFormat) {
  const auto own = [](WeightFormat format, int64_t rows, int64_t n, bool batch_invariant = false) {
    return TakesOwnKernel(kTable, format, rows, n, 10, batch_invariant);
  };
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kF16}) {
    EXPECT_TRUE(own(format, 3, 99));
    EXPECT_FALSE(own(format, 4, 99));
    EXPECT_TRUE(own(format, 5, 100));
    EXPECT_FALSE(own(format, 6, 100));
    EXPECT_TRUE(own(format, 4000, 100, true));
  }
  EXPECT_TRUE(own(WeightFormat::kInt8, 13, 99));
  EXPECT_FALSE(own(WeightFormat::kInt8, 14, 99));
  EXPECT_TRUE(own(WeightFormat::kInt8, 17, 100));
  EXPECT_FALSE(own(WeightFormat::kInt8, 18, 100));
  // Integer sums are exact: the path does not show in the result.
  EXPECT_FALSE(own(WeightFormat::kInt8, 18, 100, true));
}

TEST(TableFor, PrefersTheGpusNameAndFallsBackToItsCapability) {
  EXPECT_STREQ(TableFor("NVIDIA H200", 90).gpu, "NVIDIA H200");
  EXPECT_STREQ(TableFor("NVIDIA H100 80GB HBM3", 90).gpu, "NVIDIA H100");
  EXPECT_STREQ(TableFor("NVIDIA A100-SXM4-80GB", 80).gpu, "NVIDIA A100");
  EXPECT_STREQ(TableFor("NVIDIA GH200 480GB", 90).gpu, "");
  EXPECT_EQ(TableFor("NVIDIA GH200 480GB", 90).compute, 90);
  EXPECT_EQ(TableFor("NVIDIA L40S", 89).compute, 89);
  EXPECT_EQ(TableFor("NVIDIA GeForce RTX 3090", 86).compute, 0);
  EXPECT_EQ(TableFor("NVIDIA GeForce RTX 5090", 120).compute, 100);
  EXPECT_EQ(TableFor("NVIDIA B200", 100).compute, 100);
}

TEST(TableFor, OnlyHopperTakesHoppersPath) {
  for (const int capability : {80, 86, 87, 89, 90, 100, 103, 120}) {
    const MatMulTable& table = TableFor("a GPU of no table", capability);
    bool hopper = false;
    for (const int64_t k : {64, 4096}) {
      for (int64_t rows = 1; rows < 5000; rows += 7) {
        hopper |= ChoosePath(table, rows, 4096, k, true, false) == MatMulPath::kHopper;
      }
    }
    EXPECT_EQ(hopper, capability == 90) << capability;
  }
}

TEST(MatMulTables, KeepWithinWhatTheKernelsTake) {
  for (const MatMulTable& table : MatMulTables()) {
    for (const int size : {0, 1}) {
      EXPECT_LE(table.stream_rows[size], kMaxStreamRows) << table.gpu << table.compute;
      EXPECT_LE(table.stream_rows[size], table.staged_rows[size]) << table.gpu << table.compute;
    }
  }
}

TEST(PieceRows, FillsWholeWavesWhereItCan) {
  EXPECT_EQ(PieceRows(512, 8192, 1536, 132), 1536);   // one wave whatever the piece: the largest
  EXPECT_EQ(PieceRows(4096, 8192, 1536, 132), 1024);  // 128 tiles of 132, not 192
  EXPECT_EQ(PieceRows(2048, 14336, 3072, 132), 2048);
  EXPECT_EQ(PieceRows(4096, 1000, 3072, 132), 1000);
  EXPECT_EQ(PieceRows(512, 300, 100, 132), 96);  // less room than a tile: whole panels
  EXPECT_EQ(PieceRows(512, 300, 7, 132), 7);
}

TEST(PieceRows, KeepsWithinItsRoomForAnyShape) {
  for (int64_t rows = 1; rows < 9000; rows = rows * 3 + 1) {
    for (int64_t n = 1; n < 200000; n = n * 2 + 3) {
      for (const int64_t room : {1, 16, 438, 3072, 100000}) {
        const int64_t piece = PieceRows(rows, n, room, 108);
        EXPECT_GE(piece, 1);
        EXPECT_LE(piece, std::min(n, room));
      }
    }
  }
}

TEST(MatMulPath, HasANameEach) {
  std::set<std::string> names;
  for (int path = 0; path < kNumMatMulPaths; ++path) {
    names.insert(Name(static_cast<MatMulPath>(path)));
  }
  EXPECT_EQ(names.size(), size_t{kNumMatMulPaths});
}

}  // namespace
}  // namespace nibble::cuda
