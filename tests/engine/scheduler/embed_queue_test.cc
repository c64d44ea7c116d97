// Packing is dense, fair and keeps settings apart.
#include "engine/scheduler/embed_queue.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace nibble {
namespace {

Packable MakeRequest(std::vector<int64_t> rows, int64_t dimensions = 0) {
  Packable request;
  request.settings.dimensions = dimensions;
  request.input_rows = std::move(rows);
  return request;
}

int64_t RowsOf(const std::vector<PackedInput>& taken) {
  return std::accumulate(taken.begin(), taken.end(), int64_t{0}, [](int64_t sum, const auto& in) {
    return sum + in.request->input_rows[in.input];
  });
}

TEST(EmbedQueue, PacksInputsOfSeveralRequestsIntoOneStep) {
  Packable a = MakeRequest({3, 4}), b = MakeRequest({5});
  EmbedQueue queue;
  queue.Add(&a);
  queue.Add(&b);
  std::vector<PackedInput> taken;
  queue.Plan({.rows_wanted = 100, .max_rows = 100, .max_inputs = 100}, &taken);
  EXPECT_EQ(taken.size(), 3u);
  EXPECT_EQ(RowsOf(taken), 12);
  EXPECT_TRUE(queue.empty());
}

TEST(EmbedQueue, TakesInputsOfOneRequestInOrder) {
  Packable a = MakeRequest({1, 2, 3, 4, 5});
  EmbedQueue queue;
  queue.Add(&a);
  std::vector<PackedInput> taken;
  queue.Plan({.rows_wanted = 6, .max_rows = 100, .max_inputs = 100}, &taken);
  ASSERT_EQ(taken.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(taken[i].input, i);
  queue.Plan({.rows_wanted = 100, .max_rows = 100, .max_inputs = 100}, &taken);
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0].input, 3u);
}

TEST(EmbedQueue, KeepsDifferentSettingsApart) {
  Packable a = MakeRequest({1}), b = MakeRequest({1}, 4), c = MakeRequest({1});
  EmbedQueue queue;
  for (auto* request : {&a, &b, &c}) queue.Add(request);
  std::vector<PackedInput> taken;
  queue.Plan({.rows_wanted = 100, .max_rows = 100, .max_inputs = 100}, &taken);
  EXPECT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[1].request, &c);
  queue.Plan({.rows_wanted = 100, .max_rows = 100, .max_inputs = 100}, &taken);
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].request, &b);
}

TEST(EmbedQueue, TakesOneInputLongerThanTheBudget) {
  Packable a = MakeRequest({90, 90});
  EmbedQueue queue;
  queue.Add(&a);
  std::vector<PackedInput> taken;
  queue.Plan({.rows_wanted = 10, .max_rows = 100, .max_inputs = 100}, &taken);
  EXPECT_EQ(taken.size(), 1u);
}

TEST(EmbedQueue, TakesNoMoreInputsThanAllowed) {
  Packable a = MakeRequest(std::vector<int64_t>(10, 1));
  EmbedQueue queue;
  queue.Add(&a);
  std::vector<PackedInput> taken;
  queue.Plan({.rows_wanted = 100, .max_rows = 100, .max_inputs = 4}, &taken);
  EXPECT_EQ(taken.size(), 4u);
}

TEST(EmbedQueue, LetsASmallRequestPassALargeOne) {
  Packable large = MakeRequest(std::vector<int64_t>(1000, 10)), small = MakeRequest({10});
  EmbedQueue queue;
  queue.Add(&large);
  queue.Add(&small);
  std::vector<PackedInput> taken;
  queue.Plan({.rows_wanted = 50, .max_rows = 50, .max_inputs = 100}, &taken);
  EXPECT_TRUE(small.all_taken());
}

TEST(EmbedQueue, ForgetsARemovedRequest) {
  Packable a = MakeRequest({1}), b = MakeRequest({2});
  EmbedQueue queue;
  queue.Add(&a);
  queue.Add(&b);
  queue.Remove(&a);
  queue.Remove(&a);
  std::vector<PackedInput> taken;
  queue.Plan({.rows_wanted = 100, .max_rows = 100, .max_inputs = 100}, &taken);
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].request, &b);
}

TEST(EmbedQueue, TakesEveryInputOnceUnderRandomLoad) {
  std::mt19937 random(3);
  std::vector<std::unique_ptr<Packable>> requests;
  std::map<std::pair<Packable*, size_t>, int> seen;
  EmbedQueue queue;
  std::vector<PackedInput> taken;
  for (int step = 0; step < 2000; ++step) {
    if (step < 1000) {
      std::vector<int64_t> rows(1 + random() % 9);
      for (int64_t& r : rows) r = 1 + static_cast<int64_t>(random() % 64);
      requests.push_back(std::make_unique<Packable>(MakeRequest(rows, random() % 3)));
      queue.Add(requests.back().get());
    }
    queue.Plan({.rows_wanted = 40 + static_cast<int64_t>(random() % 200),
                .max_rows = 128,
                .max_inputs = 16},
               &taken);
    EXPECT_LE(RowsOf(taken), 128);
    EXPECT_LE(taken.size(), 16u);
    for (const PackedInput& in : taken) {
      ++seen[{in.request, in.input}];
      EXPECT_EQ(in.request->settings, taken.front().request->settings);
    }
  }
  while (!queue.empty()) {
    queue.Plan({.rows_wanted = 128, .max_rows = 128, .max_inputs = 16}, &taken);
    ASSERT_FALSE(taken.empty());
    for (const PackedInput& in : taken) ++seen[{in.request, in.input}];
  }
  size_t inputs = 0;
  for (const auto& request : requests) inputs += request->input_rows.size();
  EXPECT_EQ(seen.size(), inputs);
  for (const auto& [input, times] : seen) EXPECT_EQ(times, 1);
}

}  // namespace
}  // namespace nibble
