// Pages are neither lost nor shared.
#include "engine/kvcache/page_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <utility>

namespace nibble {
namespace {

TEST(PagePool, BeginsWithEveryPageFree) {
  const PagePool pool(7);
  EXPECT_EQ(pool.num_pages(), 7);
  EXPECT_EQ(pool.num_free(), 7);
  EXPECT_EQ(pool.num_used(), 0);
}

TEST(PageTable, TakesOnePagePerSixteenPositions) {
  PagePool pool(8);
  PageTable table(&pool);
  EXPECT_EQ(table.Missing(16), 1);
  EXPECT_EQ(table.Missing(17), 2);
  ASSERT_TRUE(table.TryGrow(16));
  EXPECT_EQ(table.size(), 1);
  ASSERT_TRUE(table.TryGrow(16));
  EXPECT_EQ(table.size(), 1);
  ASSERT_TRUE(table.TryGrow(33));
  EXPECT_EQ(table.size(), 3);
  EXPECT_EQ(pool.num_used(), 3);
}

TEST(PageTable, KeepsItsPagesInPlaceWhenItGrows) {
  PagePool pool(8);
  PageTable table(&pool);
  ASSERT_TRUE(table.TryGrow(32));
  const int32_t first = table.pages()[0];
  const int32_t second = table.pages()[1];
  ASSERT_TRUE(table.TryGrow(100));
  EXPECT_EQ(table.pages()[0], first);
  EXPECT_EQ(table.pages()[1], second);
}

TEST(PageTable, TakesNothingWhenThereIsTooLittle) {
  PagePool pool(2);
  PageTable table(&pool);
  EXPECT_FALSE(table.TryGrow(33));
  EXPECT_EQ(table.size(), 0);
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(PagePool, FreesEveryPageWhenTheTableDies) {
  PagePool pool(4);
  {
    PageTable table(&pool);
    ASSERT_TRUE(table.TryGrow(64));
    EXPECT_EQ(pool.num_free(), 0);
  }
  EXPECT_EQ(pool.num_free(), 4);
}

TEST(PageTable, GivesItsPagesAwayWhenMoved) {
  PagePool pool(4);
  PageTable a(&pool);
  ASSERT_TRUE(a.TryGrow(48));
  PageTable b(std::move(a));
  EXPECT_EQ(b.size(), 3);
  PageTable c(&pool);
  ASSERT_TRUE(c.TryGrow(16));
  c = std::move(b);
  EXPECT_EQ(c.size(), 3);
  EXPECT_EQ(pool.num_used(), 3);
}

TEST(PagePool, GrantsNoPageTwiceUnderRandomUse) {
  std::mt19937 random(1);
  PagePool pool(50);
  std::vector<PageTable> tables;
  for (int i = 0; i < 12; ++i) tables.emplace_back(&pool);
  for (int step = 0; step < 5000; ++step) {
    PageTable& table = tables[random() % tables.size()];
    if (random() % 3 == 0) {
      table.Clear();
    } else {
      const int64_t missing = table.Missing(200);
      const bool enough = missing <= pool.num_free();
      EXPECT_EQ(table.TryGrow(200), enough);
    }
    std::set<int32_t> held;
    int64_t total = 0;
    for (const PageTable& each : tables) {
      total += each.size();
      held.insert(each.pages(), each.pages() + each.size());
    }
    ASSERT_EQ(static_cast<int64_t>(held.size()), total);
    ASSERT_EQ(total + pool.num_free(), pool.num_pages());
    ASSERT_TRUE(held.empty() || (*held.begin() >= 0 && *held.rbegin() < 50));
  }
}

TEST(PagePoolDeathTest, RefusesToDieBeforeItsTables) {
  EXPECT_DEATH(
      {
        PagePool* const pool = new PagePool(1);
        PageTable table(pool);
        table.TryGrow(1);
        delete pool;
      },
      "every page is back when its pool dies");
}

}  // namespace
}  // namespace nibble
