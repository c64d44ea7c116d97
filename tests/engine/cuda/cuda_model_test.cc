// Whole models on the CUDA backend beside the CPU's: the same tokens but after a tie, the same
// vectors within the mode's error, and answers that do not depend on neighbours.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/engine/model/testing.h"
#include "tests/kernels/cuda/machine_seeds.h"

namespace nibble {
namespace {

using cuda::CudaBackend;
using testing::Encode;
using testing::Generate;
using testing::GoldenPath;
using testing::LoadedModel;
using testing::LoadOrDie;
using testing::TestBackend;
using testing::TestSequence;

// A logit gap below this may be decided otherwise by another arithmetic.
constexpr float kTie = 0.05f;

std::unique_ptr<Backend> Gpu(Compute compute, bool batch_invariant = false) {
  auto backend = MakeCudaBackend({.device = "cuda:0",
                                  .num_threads = 1,
                                  .compute = compute,
                                  .batch_invariant = batch_invariant});
  if (!backend.ok()) ADD_FAILURE() << backend.status();
  return *std::move(backend);
}

LoadedModel OnGpu(const std::string& name, Compute compute, const ModelOptions& options = {},
                  bool batch_invariant = false) {
  return LoadOrDie(GoldenPath("models/" + name), options, Gpu(compute, batch_invariant));
}

LoadedModel OnCpu(const std::string& name, const ModelOptions& options = {}) {
  return LoadOrDie(GoldenPath("models/" + name), options, TestBackend("cpu"));
}

const CudaBackend& BackendOf(const LoadedModel& loaded) {
  return static_cast<const CudaBackend&>(*loaded.backend);
}

// Same tokens up to the first tie; how many were compared.
size_t ExpectSameTokens(const TestSequence& got, const TestSequence& want) {
  for (size_t i = 0; i < want.sampled.size(); ++i) {
    if (got.sampled[i].token == want.sampled[i].token) continue;
    EXPECT_LT(want.sampled[i].top[0].logprob - want.sampled[i].top[1].logprob, kTie)
        << "token " << i << " is " << got.sampled[i].token << ", the CPU's "
        << want.sampled[i].token;
    return i;
  }
  return want.sampled.size();
}

struct Form {
  const char* model;
  const char* name;
  ModelOptions options;
};

std::vector<Form> Forms() {
  const auto of = [](WeightFormat format, bool double_quant = true) {
    ModelOptions options;
    options.weights = format;
    options.double_quant = double_quant;
    return options;
  };
  const auto with_head = [](WeightFormat head) {
    ModelOptions options;
    options.head = head;
    return options;
  };
  return {{"stories260k", "nf4", of(WeightFormat::kNf4)},
          {"stories260k", "head nf4", with_head(WeightFormat::kNf4)},
          {"tiny_chat", "head int8", with_head(WeightFormat::kInt8)},
          {"stories260k", "nf4 without double quantization", of(WeightFormat::kNf4, false)},
          {"stories260k", "fp4", of(WeightFormat::kFp4)},
          {"stories260k", "int8", of(WeightFormat::kInt8)},
          {"stories260k", "16 bits", of(WeightFormat::kBf16)},
          {"tiny_chat", "nf4", of(WeightFormat::kNf4)}};
}

class CudaModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::CountDevices() == 0) GTEST_SKIP() << "this machine has no GPU";
    cuda::SetMachineSeed(1);
  }
};

TEST_F(CudaModelTest, AnswersAsTheCpuDoesInEveryFormAndMode) {
  const std::vector<int32_t> prompt = {1, 403, 407, 261, 378, 20, 77, 300, 11, 5, 90};
  for (const Form& form : Forms()) {
    const LoadedModel cpu = OnCpu(form.model, form.options);
    const TestSequence want = Generate(cpu.model.get(), prompt, 14, 512, 2);
    for (const Compute compute : {Compute::kFp32, Compute::kBf16}) {
      SCOPED_TRACE(::testing::Message() << form.model << " " << form.name << " " << Name(compute));
      const LoadedModel gpu = OnGpu(form.model, compute, form.options);
      const TestSequence got = Generate(gpu.model.get(), prompt, 14, 512, 2);
      ExpectSameTokens(got, want);
      // Of the first token, before any choice: the prompt's error alone. 16-bit products err by
      // 2^-9 of a logit, a few units large; fp32 ones by their order, and by keys and values that
      // fp16 rounds the other way.
      const float bound = compute == Compute::kFp32 ? 5e-3f : 5e-2f;
      EXPECT_NEAR(got.sampled[0].top[0].logprob, want.sampled[0].top[0].logprob, bound);
    }
  }
}

TEST_F(CudaModelTest, EmbedsAsTheCpuDoes) {
  const std::vector<std::vector<int32_t>> inputs = {
      {2, 10, 20, 30, 40, 50, 60, 3}, {2, 3}, {2, 7, 7, 3}};
  for (const WeightFormat head : {WeightFormat::kBf16, WeightFormat::kNf4, WeightFormat::kInt8}) {
    ModelOptions options;
    options.head = head;
    const LoadedModel cpu = OnCpu("tiny_bert", options);
    const auto want = Encode(cpu.model.get(), inputs, Pooling::kMean, true);
    for (const Compute compute : {Compute::kFp32, Compute::kBf16}) {
      const LoadedModel gpu = OnGpu("tiny_bert", compute, options);
      for (int time = 0; time < 3; ++time) {
        const auto got = Encode(gpu.model.get(), inputs, Pooling::kMean, true);
        // Components of unit vectors, after layer norms that keep errors at the products' own: some
        // 2^-20 in fp32, 2^-9 in 16 bits.
        const float bound = compute == Compute::kFp32 ? 2e-5f : 5e-3f;
        for (size_t i = 0; i < inputs.size(); ++i) {
          for (size_t j = 0; j < want[i].size(); ++j) {
            ASSERT_NEAR(got[i][j], want[i][j], bound)
                << Name(head) << " " << Name(compute) << " " << i << " " << j;
          }
        }
      }
    }
  }
}

// Steps of all sequences together, each with its own pages, until each has `count` tokens.
void GenerateTogether(Model* model, std::vector<TestSequence>* sequences, size_t count,
                      int64_t chunk) {
  while (true) {
    std::vector<TestSequence*> running;
    for (TestSequence& sequence : *sequences) {
      if (sequence.sampled.size() < count) running.push_back(&sequence);
    }
    if (running.empty()) return;
    testing::Step(model, running, chunk, 1);
  }
}

std::vector<int32_t> PromptOf(int i) {
  std::vector<int32_t> prompt;
  for (int j = 0; j < 1 + 5 * i; ++j) prompt.push_back((i * 97 + j * 31) % 500);
  return prompt;
}

TEST_F(CudaModelTest, NeighboursAndChunksDoNotChangeABitWhenBatchInvariant) {
  for (const Compute compute : {Compute::kFp32, Compute::kBf16}) {
    const LoadedModel gpu = OnGpu("stories260k", compute, {}, true);
    constexpr int kSequences = 4;
    constexpr size_t kCount = 6;
    std::vector<TestSequence> crowd;
    for (int i = 0; i < kSequences; ++i) {
      crowd.push_back(testing::MakeSequence(PromptOf(i), 64, static_cast<int32_t>(4 * i)));
    }
    GenerateTogether(gpu.model.get(), &crowd, kCount, 7);
    for (int i = 0; i < kSequences; ++i) {
      const TestSequence alone = Generate(gpu.model.get(), PromptOf(i), kCount, 512, 1);
      const TestSequence& among = crowd[static_cast<size_t>(i)];
      EXPECT_EQ(alone.tokens, among.tokens) << Name(compute);
      for (size_t j = 0; j < kCount; ++j) {
        EXPECT_EQ(alone.sampled[j].logprob, among.sampled[j].logprob)
            << Name(compute) << ", sequence " << i << ", token " << j;
      }
    }
  }
}

TEST_F(CudaModelTest, DecodeIsReplayedAndAnswersTheSame) {
  const LoadedModel replayed = OnGpu("stories260k", Compute::kBf16),
                    played = OnGpu("stories260k", Compute::kBf16);
  const TestSequence got = Generate(replayed.model.get(), {1, 2, 3}, 20, 512, 1);
  TestSequence want = testing::MakeSequence({1, 2, 3}, 64);
  while (want.sampled.size() < 20) {
    ASSERT_TRUE(played.backend->Allocate(256).ok());  // which forgets graphs
    testing::Step(played.model.get(), {&want}, 512, 1);
  }
  EXPECT_EQ(got.tokens, want.tokens);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(got.sampled[i].logprob, want.sampled[i].logprob);
  const cuda::GraphCache::Counts& counts = BackendOf(replayed).step().graphs().counts();
  // One tape a step, new twice with 1 and twice with 2 pages.
  EXPECT_GE(counts.replayed, 14);
  EXPECT_EQ(BackendOf(played).step().graphs().counts().replayed, 0);
}

}  // namespace
}  // namespace nibble
