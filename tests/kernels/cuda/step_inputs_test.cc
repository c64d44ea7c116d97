// The block of a step's inputs is host arithmetic: what is read here from its host side at a device
// address's offset is what the one copy takes there.
#include "kernels/cuda/step_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

namespace nibble::cuda {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kBytes = 64 << 10;

class StepInputsTest : public ::testing::Test {
 protected:
  // What will be at a device address.
  template <typename T>
  std::vector<T> At(const T* device, size_t count) const {
    const auto* const host = reinterpret_cast<const T*>(
        host_.data() + (reinterpret_cast<const char*>(device) - device_.data()));
    return std::vector<T>(host, host + count);
  }

  std::vector<char> host_ = std::vector<char>(kBytes), device_ = std::vector<char>(kBytes);
  StepInputs inputs_{host_.data(), device_.data(), kBytes};
};

TEST_F(StepInputsTest, KeepsEveryArrayAligned) {
  const std::vector<int32_t> ids = {3, 1, 4}, rows = {1, 5};
  const auto a = inputs_.Add(std::span<const int32_t>(ids));
  const auto b = inputs_.Add(std::span<const int32_t>(rows));
  ASSERT_TRUE(a.has_value() && b.has_value());
  EXPECT_THAT(At(*a, 3), ElementsAre(3, 1, 4));
  EXPECT_THAT(At(*b, 2), ElementsAre(1, 5));
  EXPECT_EQ((reinterpret_cast<const char*>(*b) - device_.data()) % kSlotBytes, 0);
  EXPECT_EQ(inputs_.used(), 2 * kSlotBytes);
}

TEST_F(StepInputsTest, StepsOfEqualShapesHaveEqualAddresses) {
  std::vector<const void*> places[2];
  for (int step = 0; step < 2; ++step) {
    inputs_.Clear();
    // Lists that grow a little stay in their slots.
    const std::vector<int32_t> ids(size_t{70} + static_cast<size_t>(step) * 50, step);
    const std::vector<int32_t> pages(40, step);
    const std::vector<SequenceRows> sequences = {
        {.first_row = 0, .num_rows = 1, .start = 300 + step, .pages = pages.data()},
        {.first_row = 1, .num_rows = 1, .start = 17, .pages = pages.data()}};
    places[step].push_back(*inputs_.Add(std::span<const int32_t>(ids)));
    const DeviceSequences on_device = *inputs_.AddSequences(sequences, 2);
    places[step].push_back(on_device.sequences);
    places[step].push_back(on_device.places);
    places[step].push_back(on_device.pages);
    EXPECT_EQ(on_device.page_stride, 32);
    places[step].push_back(*inputs_.Add(std::span<const int32_t>(ids)));
  }
  EXPECT_EQ(places[0], places[1]);
}

TEST_F(StepInputsTest, TellsWhoseEveryRowIsAndWhereItsPagesAre) {
  const std::vector<int32_t> first = {7, 8}, second = {5, 6, 9};
  const std::vector<SequenceRows> sequences = {
      {.first_row = 1, .num_rows = 2, .start = 30, .pages = first.data()},
      {.first_row = 4, .num_rows = 1, .start = 47, .pages = second.data()}};
  const auto on_device = inputs_.AddSequences(sequences, 6);
  ASSERT_TRUE(on_device.has_value());
  EXPECT_EQ(on_device->num_sequences, 2);
  EXPECT_EQ(on_device->num_rows, 6);
  EXPECT_EQ(on_device->max_rows, 2);
  EXPECT_EQ(on_device->page_stride, 4);
  EXPECT_THAT(At(on_device->pages, 8), ElementsAre(7, 8, -1, -1, 5, 6, 9, -1));
  const auto places = At(on_device->places, 6);
  std::vector<int32_t> whose, where;
  for (const RowPlace& place : places) {
    whose.push_back(place.sequence);
    where.push_back(place.sequence < 0 ? -1 : place.position);
  }
  EXPECT_THAT(whose, ElementsAre(-1, 0, 0, -1, 1, -1));
  EXPECT_THAT(where, ElementsAre(-1, 30, 31, -1, 47, -1));
  const auto rows = At(on_device->sequences, 2);
  EXPECT_EQ(rows[1].first_row, 4);
  EXPECT_EQ(rows[1].num_rows, 1);
  EXPECT_EQ(rows[1].start, 47);
}

TEST_F(StepInputsTest, EqualSequencesAndVectorsGoOnce) {
  const std::vector<int32_t> pages = {0};
  const std::vector<SequenceRows> sequences = {{.num_rows = 3, .pages = pages.data()}};
  const std::vector<SequenceRows> equal = sequences;
  const std::vector<float> freq = {1, 2}, other = {1, 3};
  const DeviceSequences first = *inputs_.AddSequences(sequences, 3);
  const float* const first_freq = *inputs_.AddOnce(freq);
  const int64_t used = inputs_.used();
  EXPECT_EQ(inputs_.AddSequences(equal, 3)->sequences, first.sequences);
  EXPECT_EQ(*inputs_.AddOnce(freq), first_freq);
  EXPECT_EQ(inputs_.used(), used);
  EXPECT_NE(*inputs_.AddOnce(other), first_freq);
  EXPECT_NE(inputs_.AddSequences(equal, 4)->sequences, first.sequences) << "another step's rows";
  EXPECT_GT(inputs_.used(), used);
  inputs_.Clear();
  EXPECT_EQ(inputs_.used(), 0);
}

TEST_F(StepInputsTest, EncodersHaveNoPages) {
  const std::vector<SequenceRows> sequences = {{.num_rows = 3}, {.first_row = 3, .num_rows = 40}};
  const auto on_device = inputs_.AddSequences(sequences, 43);
  ASSERT_TRUE(on_device.has_value());
  EXPECT_EQ(on_device->pages, nullptr);
  EXPECT_EQ(on_device->max_rows, 40);
}

TEST_F(StepInputsTest, WhatDoesNotFitIsRefusedWhole) {
  const std::vector<int32_t> pages(4096);
  const std::vector<SequenceRows> sequences(
      5, {.num_rows = 1, .start = 16 * 4096 - 1, .pages = pages.data()});
  EXPECT_FALSE(inputs_.AddSequences(sequences, 1).has_value());
  EXPECT_EQ(inputs_.used(), 0) << "half of it would be in the way";
  EXPECT_TRUE(inputs_.AddSequences(std::span(sequences).first(2), 1).has_value());
  EXPECT_FALSE(inputs_.Reserve(kBytes).has_value());
}

}  // namespace
}  // namespace nibble::cuda
