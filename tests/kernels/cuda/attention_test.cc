// Attention over pages against the oracle, and that a row's numbers are its own: bit for bit the
// same alone, in a crowd, in one chunk or in many.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/cuda/attention_cases.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

class CudaAttention : public CudaTest {};

constexpr DType kTypes[] = {DType::kF16, DType::kBF16, DType::kF32};

int64_t Pick(std::mt19937_64* random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(*random);
}

// Sequences of all kinds in one step: one row or many, beginning anywhere in a page, and none.
std::vector<StepPart> RandomStep(std::mt19937_64* random, int64_t longest, bool decode,
                                 std::vector<int64_t>* lengths) {
  std::vector<StepPart> step;
  const int64_t sequences = Pick(random, 1, 3);
  for (int i = 0; i < sequences; ++i) {
    const int64_t length = Pick(random, 1, longest);
    const int64_t most = decode ? 1 : std::min<int64_t>(length, 40);
    const int64_t rows = decode || Pick(random, 0, 3) == 0 ? 1 : Pick(random, 1, most);
    lengths->push_back(length);
    step.push_back({i, length - rows, rows});
  }
  if (Pick(random, 0, 3) == 0) step.push_back({0, 0, 0});
  return step;
}

void ExpectRandomSteps(int num_steps, bool exact, bool decode, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < num_steps; ++i) {
    AttentionShape shape;
    shape.dtype = exact ? kTypes[i % 3] : kTypes[i % 2];
    // Mostly small heads: the emulator takes its time with large ones.
    const int64_t widest = i % 16 == 0 ? 16 : i % 4 == 0 ? 8 : 2;
    shape.head_dim = exact ? 2 * Pick(&random, 1, 8 * widest) : 16 * Pick(&random, 1, widest);
    shape.num_kv_heads = Pick(&random, 1, 2);
    shape.group = Pick(&random, 1, 8);
    std::vector<int64_t> lengths;
    const std::vector<StepPart> step = RandomStep(&random, i % 8 == 0 ? 150 : 40, decode, &lengths);
    const auto size = static_cast<float>(Pick(&random, 0, 4));
    AttentionCase attention(shape, lengths, seed * 1000 + static_cast<uint64_t>(i), size);
    SCOPED_TRACE(::testing::Message()
                 << "step " << i << ": " << Name(shape.dtype) << ", head_dim " << shape.head_dim
                 << ", " << shape.num_kv_heads << " KV heads of " << shape.group);
    SetMachineSeed(static_cast<uint64_t>(i));
    ExpectWithin(attention.Attend(step, exact, 160), attention.Reference(step),
                 attention.Bounds(step, exact));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(CudaAttention, DecodesRandomStepsOnTheTensorCores) {
  ExpectRandomSteps(500, false, true, 1);
}
TEST_F(CudaAttention, TakesRandomPromptsOnTheTensorCores) {
  ExpectRandomSteps(500, false, false, 2);
}
TEST_F(CudaAttention, IsExactForRandomStepsInFp32) { ExpectRandomSteps(500, true, false, 3); }

// The rows of `step` in the order of `whole`, which has all positions of sequence 0.
void ExpectRowsOf(const std::vector<float>& whole, const AttentionShape& shape,
                  const StepPart& part, std::span<const float> rows) {
  const auto cols = static_cast<size_t>(shape.cols());
  const auto first = static_cast<size_t>(part.start) * cols;
  for (size_t i = 0; i < static_cast<size_t>(part.rows) * cols; ++i) {
    ASSERT_EQ(rows[i], whole[first + i])
        << "position " << part.start + static_cast<int64_t>(i / cols) << ", value " << i % cols;
  }
}

void ExpectSameHoweverCut(const AttentionShape& shape, int64_t length, bool exact, uint64_t seed) {
  constexpr int64_t kContext = 1000;
  std::mt19937_64 random(seed);
  AttentionCase attention(shape, {length, 77, 300}, seed);
  SCOPED_TRACE(::testing::Message() << Name(shape.dtype) << ", head_dim " << shape.head_dim
                                    << ", group " << shape.group << ", length " << length);
  const std::vector<float> whole = attention.Attend({{0, 0, length}}, exact, kContext);
  ASSERT_EQ(static_cast<int64_t>(whole.size()), length * shape.cols());
  for (int64_t start = 0; start < length;) {
    const int64_t rows = std::min(Pick(&random, 1, length / 2 + 1), length - start);
    const StepPart part = {0, start, rows};
    ExpectRowsOf(whole, shape, part, attention.Attend({part}, exact, kContext));
    start += rows;
  }
  for (int i = 0; i < 3; ++i) {
    const StepPart row = {0, i == 0 ? length - 1 : Pick(&random, 0, length - 1), 1};
    ExpectRowsOf(whole, shape, row, attention.Attend({row}, exact, kContext));
    // Beside a sequence that decodes and, every other time, one in prefill.
    const std::vector<StepPart> crowd = {row, {1, 76, 1}, {2, 200, i % 2 == 0 ? 30 : 1}};
    ExpectRowsOf(whole, shape, row, attention.Attend(crowd, exact, kContext));
  }
}

TEST_F(CudaAttention, GivesARowTheSameBitsAloneInACrowdAndInAnyChunks) {
  const AttentionShape shapes[] = {{DType::kF16, 32, 2, 4},   {DType::kBF16, 64, 1, 3},
                                   {DType::kF16, 80, 1, 1},   {DType::kF16, 128, 1, 2},
                                   {DType::kBF16, 160, 1, 2}, {DType::kF16, 16, 1, 20},
                                   {DType::kF16, 30, 1, 2},   {DType::kF32, 32, 1, 2}};
  uint64_t seed = 1;
  for (const AttentionShape& shape : shapes) {
    // The shortest splits are 256 positions.
    for (const int64_t length : {int64_t{70}, shape.head_dim > 64 ? int64_t{300} : int64_t{550}}) {
      ExpectSameHoweverCut(shape, length, shape.dtype == DType::kF32, seed++);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaAttention, AddsTheSplitsOfLongContexts) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const AttentionShape shape = {dtype, 32, 1, 4};
    AttentionCase attention(shape, {900, 513, 256}, 5);
    const std::vector<StepPart> step = {{0, 880, 20}, {1, 512, 1}, {2, 255, 1}};
    ExpectWithin(attention.Attend(step, false, 1000), attention.Reference(step),
                 attention.Bounds(step, false));
  }
}

// From position 8192 on splits are twice as long, from row to row.
TEST_F(CudaAttention, LengthensSplitsWithARowsContext) {
  const AttentionShape shape = {DType::kF16, 16, 1, 2};
  constexpr int64_t kContext = 10000;
  AttentionCase attention(shape, {8196}, 6);
  const std::vector<StepPart> step = {{0, 8188, 8}};
  const std::vector<float> rows = attention.Attend(step, false, kContext);
  ExpectWithin(rows, attention.Reference(step), attention.Bounds(step, false));
  for (int64_t i = 0; i < 8; ++i) {
    const std::vector<float> row = attention.Attend({{0, 8188 + i, 1}}, false, kContext);
    for (size_t c = 0; c < row.size(); ++c) {
      ASSERT_EQ(row[c], rows[static_cast<size_t>(i) * row.size() + c]) << 8188 + i;
    }
  }
}

// Steps of more sequences than scratch memory has room for at a time.
TEST_F(CudaAttention, AddsTheSplitsOfFiveHundredContexts) {
  std::mt19937_64 random(8);
  for (int i = 0; i < 5; ++i) {
    const AttentionShape shape = {kTypes[i % 2], 16, 1 + i % 2, 1 + i};
    std::vector<int64_t> lengths;
    std::vector<StepPart> step;
    for (int sequence = 0; sequence < 100; ++sequence) {
      lengths.push_back(Pick(&random, 240, sequence % 8 == 0 ? 1100 : 400));
      step.push_back({sequence, lengths.back() - 1, 1});
    }
    SetMachineSeed(static_cast<uint64_t>(i));
    AttentionCase attention(shape, lengths, 80 + static_cast<uint64_t>(i));
    ExpectWithin(attention.Attend(step, false, 1100), attention.Reference(step),
                 attention.Bounds(step, false));
  }
}

TEST_F(CudaAttention, TakesQueriesBeyondHalfPrecision) {
  const AttentionShape shape = {DType::kF16, 32, 1, 2};
  AttentionCase attention(shape, {40}, 9, 1e7f);
  for (const float value : attention.Attend({{0, 39, 1}}, false, 300)) {
    EXPECT_LT(std::fabs(value), 6.0f);  // values are normal; a NaN fails, too
  }
}

TEST_F(CudaAttention, DoesNotDependOnTheOrderOfThreads) {
  const AttentionShape shape = {DType::kBF16, 48, 2, 3};
  AttentionCase attention(shape, {300, 90}, 10);
  const std::vector<StepPart> step = {{0, 299, 1}, {1, 50, 40}};
  const std::vector<float> first = attention.Attend(step, false, 300);
  ForMachineSeeds(6, [&] { EXPECT_EQ(attention.Attend(step, false, 300), first); });
}

TEST(AttentionScratch, IsTheSplitsOf64Rows) {
  EXPECT_EQ(AttentionScratchBytes(512, 256, 32, 128), 0);
  EXPECT_EQ(AttentionScratchBytes(8, 8192, 32, 128), 8 * 32 * 32 * 130 * 4);
  EXPECT_EQ(AttentionScratchBytes(512, 131072, 32, 128), 64 * 32 * 32 * 130 * 4);
}

}  // namespace
}  // namespace nibble::cuda
