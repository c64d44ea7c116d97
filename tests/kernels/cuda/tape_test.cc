// A tape's bytes are its meaning: what differs is unequal, what is the same is equal, and playing
// does the entries in order.
#include "kernels/cuda/tape.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

struct Shape {
  int32_t rows;
  int32_t columns;
  const float* data;
};
// Never played: their addresses are what counts.
void Scale(Shape, float) {}
void Shift(Shape, float) {}

struct Variant {
  void (*kernel)(Shape, float) = &Scale;
  Dim3 grid = {2, 3, 4};
  Dim3 block = {32, 2, 1};
  LaunchOptions options = {.shared_bytes = 64};
  Shape shape = {5, 7, nullptr};
  float factor = 1.5f;
};

Tape Record(const Variant& v) {
  Tape tape;
  Launch(&tape, v.kernel, v.grid, v.block, v.options, v.shape, v.factor);
  return tape;
}

TEST(Tape, EqualLaunchesAreEqualBytes) {
  const Tape one = Record({});
  const Tape two = Record({});
  EXPECT_TRUE(one == two);
  EXPECT_EQ(one.Hash(), two.Hash());
  EXPECT_EQ(one.num_entries(), 1u);
  EXPECT_FALSE(one.empty());
}

TEST(Tape, WhateverDiffersInALaunchIsSeen) {
  const float number = 0;
  std::vector<Variant> variants(13);
  variants[1].kernel = &Shift;
  variants[2].grid.x = 1;
  variants[3].grid.y = 1;
  variants[4].grid.z = 1;
  variants[5].block.x = 64;
  variants[6].block.z = 2;
  variants[7].options.shared_bytes = 65;
  variants[8].options.dependent = true;
  variants[9].shape.rows = 6;
  variants[10].shape.columns = 6;
  variants[11].shape.data = &number;
  variants[12].factor = -1.5f;
  std::set<uint64_t> hashes;
  for (size_t i = 0; i < variants.size(); ++i) {
    hashes.insert(Record(variants[i]).Hash());
    for (size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(Record(variants[i]) == Record(variants[j])) << i << " " << j;
    }
  }
  EXPECT_EQ(hashes.size(), variants.size());
}

TEST(Tape, TheOrderOfEntriesIsSeen) {
  char bytes[2] = {};
  Tape one, two;
  one.AddFill(bytes, 1, 1);
  one.AddFill(bytes + 1, 2, 1);
  two.AddFill(bytes + 1, 2, 1);
  two.AddFill(bytes, 1, 1);
  EXPECT_FALSE(one == two);
  EXPECT_NE(one.Hash(), two.Hash());
}

TEST(Tape, CopiesFillsAndProductsDiffer) {
  char bytes[4] = {};
  Tape fill, other_fill, copy, product, other_product;
  fill.AddFill(bytes, 1, 1);
  other_fill.AddFill(bytes, 2, 1);
  copy.AddCopy(bytes, bytes + 2, 1);
  GemmCall call;
  product.AddGemm(call);
  call.accumulate = 1;
  other_product.AddGemm(call);
  const Tape* const tapes[] = {&fill, &other_fill, &copy, &product, &other_product};
  for (const Tape* a : tapes) {
    for (const Tape* b : tapes) EXPECT_EQ(*a == *b, a == b);
  }
}

TEST(Tape, NothingToDoIsLeftOut) {
  Tape tape;
  char byte = 0;
  tape.AddCopy(&byte, &byte, 0);
  tape.AddFill(&byte, 0, 0);
  Launch(&tape, &Scale, {0, 1, 1}, {32}, {}, Shape{}, 0.0f);
  Launch(&tape, &Scale, {1, 0, 1}, {32}, {}, Shape{}, 0.0f);
  Launch(&tape, &Scale, {1, 1, 0}, {32}, {}, Shape{}, 0.0f);
  EXPECT_TRUE(tape.empty());
  EXPECT_EQ(tape.num_entries(), 0u);
}

TEST(Tape, AClearedTapeIsAsNew) {
  Tape tape = Record({});
  tape.Clear();
  EXPECT_TRUE(tape.empty());
  EXPECT_TRUE(tape == Tape());
  Launch(&tape, &Scale, {2, 3, 4}, {32, 2, 1}, {.shared_bytes = 64}, Variant{}.shape, 1.5f);
  EXPECT_TRUE(tape == Record({}));
}

using PlayedTape = CudaTest;

TEST_F(PlayedTape, DoesItsEntriesInOrder) {
  const DeviceArray<char> first(48);
  const DeviceArray<char> second(48);
  Tape tape;
  tape.AddFill(first.data(), 1, 48);
  tape.AddFill(first.data() + 16, 2, 16);
  tape.AddCopy(second.data(), first.data() + 8, 40);
  tape.AddFill(first.data(), 3, 48);
  tape.AddCopy(second.data() + 40, first.data(), 8);
  Play(tape);
  std::vector<char> want(48, 1);
  for (size_t i = 0; i < 48; ++i) {
    want[i] = i >= 40 ? 3 : i >= 8 && i < 24 ? 2 : 1;
  }
  EXPECT_EQ(second.Get(), want);
  EXPECT_EQ(first.Get(), std::vector<char>(48, 3));
}

TEST_F(PlayedTape, CanBePlayedAgain) {
  const DeviceArray<int32_t> sum(std::vector<int32_t>{100});
  const DeviceArray<int8_t> x(std::vector<int8_t>{1, 2, 3, 4});
  const DeviceArray<int8_t> w(std::vector<int8_t>{5, 6, 7, 8});
  Tape tape;
  tape.AddGemm({.type = GemmCall::Type::kInt8,
                .accumulate = 1,
                .m = 1,
                .n = 1,
                .k = 4,
                .x = x.data(),
                .x_stride = 4,
                .w = w.data(),
                .w_stride = 4,
                .out = sum.data(),
                .out_stride = 1});
  Play(tape);
  EXPECT_EQ(sum.Get()[0], 170);
  Play(tape);
  EXPECT_EQ(sum.Get()[0], 240);
}

}  // namespace
}  // namespace nibble::cuda
