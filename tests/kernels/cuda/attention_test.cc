// Attention over pages against the oracle, and that a row's numbers are its own: bit for bit the
// same alone, in a crowd, in one chunk or in many.
#include "kernels/cuda/attention.h"

#include <algorithm>

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

}  // namespace
}  // namespace nibble::cuda
