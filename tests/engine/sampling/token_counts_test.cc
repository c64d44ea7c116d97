// Penalties see each distinct token once, with how often it was generated.
#include "engine/sampling/token_counts.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace nibble {
namespace {

std::map<int32_t, int32_t> AsMap(const TokenCounts& counts) {
  std::map<int32_t, int32_t> map;
  for (const TokenCount& count : counts.counts()) {
    EXPECT_TRUE(map.emplace(count.token, count.output_count).second) << count.token << " is twice";
  }
  return map;
}

TEST(TokenCounts, IsEmptyAtFirst) { EXPECT_TRUE(TokenCounts().counts().empty()); }

TEST(TokenCounts, CountsPromptTokensAsSeenButNotGenerated) {
  TokenCounts counts;
  counts.AddPrompt(std::vector<int32_t>{5, 9, 5});
  counts.AddOutput(9);
  counts.AddOutput(7);
  counts.AddOutput(7);
  EXPECT_EQ(AsMap(counts), (std::map<int32_t, int32_t>{{5, 0}, {9, 1}, {7, 2}}));
}

TEST(TokenCounts, KeepsTheOrderOfFirstAppearance) {
  TokenCounts counts;
  for (const int32_t id : {3, 1, 3, 2, 0, 1}) counts.AddOutput(id);
  std::vector<int32_t> order;
  for (const TokenCount& count : counts.counts()) order.push_back(count.token);
  EXPECT_EQ(order, (std::vector<int32_t>{3, 1, 2, 0}));
}

TEST(TokenCounts, AgreesWithAMapOnRandomTokens) {
  std::mt19937 random(11);
  for (const uint32_t vocabulary : {3u, 500u, 49152u, 2'000'000'000u}) {
    TokenCounts counts;
    std::map<int32_t, int32_t> want;
    for (int i = 0; i < 5000; ++i) {
      const auto id = static_cast<int32_t>(random() % vocabulary);
      if (i % 3 == 0) {
        counts.AddPrompt(std::vector<int32_t>{id});
        want.emplace(id, 0);
      } else {
        counts.AddOutput(id);
        ++want[id];
      }
    }
    EXPECT_EQ(AsMap(counts), want);
  }
}

TEST(TokenCounts, DoesNotMoveWhileWithinItsReservation) {
  TokenCounts counts;
  counts.Reserve(1000);
  counts.AddOutput(0);
  const TokenCount* const first = counts.counts().data();
  for (int32_t id = 1; id < 1000; ++id) counts.AddOutput(id * 64);
  EXPECT_EQ(counts.counts().data(), first);
  EXPECT_EQ(counts.counts().size(), 1000u);
}

TEST(TokenCounts, KeepsItsCountsWhenRoomIsReservedLater) {
  TokenCounts counts;
  for (const int32_t id : {8, 8, 4}) counts.AddOutput(id);
  counts.Reserve(10'000);
  counts.AddOutput(8);
  EXPECT_EQ(AsMap(counts), (std::map<int32_t, int32_t>{{8, 3}, {4, 1}}));
}

}  // namespace
}  // namespace nibble
