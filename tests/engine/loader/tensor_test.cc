#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "engine/loader/checkpoint.h"

namespace nibble {
namespace {

// [rows, cols] of 0, 1, 2 … in fp32 at an odd address.
struct RampTensor {
  RampTensor(std::vector<int64_t> shape, int64_t permuted_head_rows) {
    ref.name = "ramp";
    ref.shape = std::move(shape);
    ref.permuted_head_rows = permuted_head_rows;
    std::vector<float> values(static_cast<size_t>(ref.NumValues()));
    std::iota(values.begin(), values.end(), 0.0f);
    bytes.resize(values.size() * 4 + 1);
    std::memcpy(bytes.data() + 1, values.data(), values.size() * 4);
    ref.data = bytes.data() + 1;
    ref.bytes = static_cast<int64_t>(values.size()) * 4;
  }
  std::vector<float> Read(int64_t first, int64_t count) const {
    std::vector<float> out(static_cast<size_t>(count * ref.cols()));
    ReadRows(ref, first, count, out);
    return out;
  }
  TensorRef ref;
  std::vector<uint8_t> bytes;
};

TEST(TensorRef, CountsRowsAndColumns) {
  TensorRef tensor;
  EXPECT_EQ(tensor.NumValues(), 1);
  tensor.shape = {5};
  EXPECT_EQ(tensor.rows(), 5);
  EXPECT_EQ(tensor.cols(), 1);
  tensor.shape = {5, 2, 3};
  EXPECT_EQ(tensor.rows(), 5);
  EXPECT_EQ(tensor.cols(), 6);
  EXPECT_EQ(tensor.NumValues(), 30);
}

TEST(ReadRows, ReadsAnyRunOfRows) {
  const RampTensor tensor({4, 2}, 0);
  EXPECT_EQ(tensor.Read(0, 4), (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(tensor.Read(1, 2), (std::vector<float>{2, 3, 4, 5}));
  EXPECT_TRUE(tensor.Read(4, 0).empty());
}

TEST(ReadRows, UndoesThePermutationOfEachHead) {
  // Two heads of 6 rows: pairs (0,1), (2,3), (4,5) become halves.
  const RampTensor tensor({12, 1}, 6);
  EXPECT_EQ(tensor.Read(0, 12), (std::vector<float>{0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11}));
  EXPECT_EQ(tensor.Read(2, 3), (std::vector<float>{4, 1, 3}));
  EXPECT_EQ(tensor.Read(8, 2), (std::vector<float>{10, 7}));
}

TEST(ReadRows, UndoesThePermutationOfABias) {
  const RampTensor tensor({8}, 8);
  EXPECT_EQ(tensor.Read(0, 8), (std::vector<float>{0, 2, 4, 6, 1, 3, 5, 7}));
}

TEST(ReadRows, ReadsWholeBlocksOfARow) {
  // Q8_0, [2, 64]: scale 1 (fp16 0x3c00), codes 0 … 31 and -1 … -32, and the same in row 1 times 2.
  std::vector<uint8_t> bytes;
  for (const int scale_high : {0x3c, 0x3c, 0x40, 0x40}) {
    const bool second = bytes.size() % 68 >= 34;
    bytes.push_back(0);
    bytes.push_back(static_cast<uint8_t>(scale_high));
    for (int i = 0; i < 32; ++i) bytes.push_back(static_cast<uint8_t>(second ? -1 - i : i));
  }
  TensorRef tensor;
  tensor.type = TensorType::kQ8_0;
  tensor.shape = {2, 64};
  tensor.data = bytes.data();
  tensor.bytes = static_cast<int64_t>(bytes.size());
  std::vector<float> out(64);
  ReadRows(tensor, 1, 1, out);
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(out[31], 62);
  EXPECT_EQ(out[32], -2);
  EXPECT_EQ(out[63], -64);
}

TEST(ReadRows, IsSafeFromManyThreads) {
  const RampTensor tensor({256, 16}, 8);
  const std::vector<float> wanted = tensor.Read(0, 256);
  std::vector<std::vector<float>> got(4);
  std::vector<std::thread> threads;
  for (auto& out : got) threads.emplace_back([&] { out = tensor.Read(0, 256); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& out : got) EXPECT_EQ(out, wanted);
}

TEST(ReadRowsDeathTest, AbortsOnACallersMistake) {
  const RampTensor tensor({4, 2}, 0);
  std::vector<float> out(4);
  EXPECT_DEATH(ReadRows(tensor.ref, 3, 2, out), "rows in range");
  EXPECT_DEATH(ReadRows(tensor.ref, -1, 2, out), "rows in range");
  EXPECT_DEATH(ReadRows(tensor.ref, 0, 1, out), "has room");
}

TEST(TensorType, HasGgmlsNamesAndSizes) {
  EXPECT_STREQ(Name(TensorType::kBF16), "BF16");
  EXPECT_STREQ(Name(TensorType::kQ6_K), "Q6_K");
  EXPECT_EQ(BlockValues(TensorType::kF16), 1);
  EXPECT_EQ(BlockBytes(TensorType::kF16), 2);
  EXPECT_EQ(BlockValues(TensorType::kQ4_1), 32);
  EXPECT_EQ(BlockBytes(TensorType::kQ4_1), 20);
  EXPECT_EQ(BlockValues(TensorType::kQ5_K), 256);
  EXPECT_EQ(BlockBytes(TensorType::kQ5_K), 176);
}

}  // namespace
}  // namespace nibble
