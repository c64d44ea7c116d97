// The step loop's claim that nothing is allocated, checked by counting every operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/engine/model/testing.h"

namespace {

std::atomic<int64_t> allocations = 0;

void* Counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

}  // namespace

void* operator new(std::size_t bytes) { return Counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return Counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }

namespace nibble {
namespace {

using testing::LoadOrDie;
using testing::TestBackend;

TEST(NoAllocation, InADecodeStepAfterTheFirst) {
  const auto model = LoadOrDie(testing::GoldenPath("models/tiny_chat"), {}, TestBackend("cpu", 2));
  const testing::TestSequence sequence = testing::MakeSequence({}, 64);
  DecodeStep step;
  step.tokens = {1, 300, 17, 411};
  step.sequences = {{0, 4, 0, sequence.pages.data()}};
  SamplingPlan greedy, drawn;
  greedy.num_logprobs = 5;
  drawn.row = 3;
  drawn.temperature = 1;
  drawn.top_k = 40;
  drawn.top_p = 0.9f;
  step.plans = {greedy, drawn};
  ASSERT_TRUE(model->Decode(&step).ok());
  const int64_t before = allocations;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(model->Decode(&step).ok());
  EXPECT_EQ(allocations, before);
}

TEST(NoAllocation, InAnEncodeStepAfterTheFirst) {
  const auto model = LoadOrDie(testing::GoldenPath("models/tiny_bert"), {}, TestBackend("cpu", 2));
  EncodeStep step;
  step.tokens = {2, 40, 41, 3, 2, 3};
  step.sequences = {{0, 4, 0, nullptr}, {4, 2, 0, nullptr}};
  ASSERT_TRUE(model->Encode(&step).ok());
  const int64_t before = allocations;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(model->Encode(&step).ok());
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace nibble
