// The ledger counts whole plans or nothing, gives back exactly what it took, and explains a
// refusal.
#include "engine/memory/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "engine/status.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

MemoryPlan SmallPlan() {
  return {{{MemoryKind::kWeights, "q_proj", 60},
           {MemoryKind::kKvCache, "kv pages", 30},
           {MemoryKind::kWeights, "k_proj", 10}}};
}

std::vector<std::string> Lines(const Ledger& ledger) {
  std::vector<std::string> lines;
  for (const Ledger::Entry& entry : ledger.Snapshot()) {
    lines.push_back(absl::StrCat(entry.owner, " ", Name(entry.kind), " ", entry.bytes));
  }
  return lines;
}

TEST(MemoryPlan, AddsUpInAllAndByKind) {
  EXPECT_EQ(SmallPlan().Total(), 100);
  EXPECT_EQ(SmallPlan().Total(MemoryKind::kWeights), 70);
  EXPECT_EQ(SmallPlan().Total(MemoryKind::kGraphs), 0);
  EXPECT_EQ(MemoryPlan{}.Total(), 0);
}

TEST(MemoryPlan, SaturatesInsteadOfWrapping) {
  const MemoryPlan plan{{{MemoryKind::kWeights, "a", kMax},
                         {MemoryKind::kWeights, "b", kMax},
                         {MemoryKind::kOther, "c", 1}}};
  EXPECT_EQ(plan.Total(), kMax);
  EXPECT_EQ(plan.Total(MemoryKind::kWeights), kMax);
}

TEST(MemoryPlan, BreaksDownByKindInMegabytes) {
  const MemoryPlan plan{{{MemoryKind::kKvCache, "kv pages", 377'500'000},
                         {MemoryKind::kWeights, "a", 111'000'000},
                         {MemoryKind::kWeights, "b", 500'000}}};
  EXPECT_EQ(plan.Breakdown(), "weights 111.5 MB, kv_cache 377.5 MB");
  EXPECT_EQ(MemoryPlan{}.Breakdown(), "nothing");
}

TEST(MemoryPlan, AbortsOnANegativeSize) {
  const MemoryPlan plan{{{MemoryKind::kWeights, "broken", -1}}};
  EXPECT_DEATH(plan.Total(), "\"broken\" has -1 bytes");
}

TEST(MemoryKind, HasTheContractsLabels) {
  EXPECT_STREQ(Name(MemoryKind::kWeights), "weights");
  EXPECT_STREQ(Name(MemoryKind::kEmbeddings), "embeddings");
  EXPECT_STREQ(Name(MemoryKind::kKvCache), "kv_cache");
  EXPECT_STREQ(Name(MemoryKind::kWorkspace), "workspace");
  EXPECT_STREQ(Name(MemoryKind::kGraphs), "graphs");
  EXPECT_STREQ(Name(MemoryKind::kTokenizer), "tokenizer");
  EXPECT_STREQ(Name(MemoryKind::kOther), "other");
}

TEST(Ledger, CountsByOwnerAndKindUntilTheReservationDies) {
  Ledger ledger("cpu", 1000);
  {
    const auto chat = ledger.Reserve("chat", SmallPlan());
    const auto server = ledger.Reserve("", {{{MemoryKind::kWorkspace, "scratch", 5}}});
    ASSERT_TRUE(chat.ok() && server.ok());
    EXPECT_EQ(chat->bytes(), 100);
    EXPECT_EQ(ledger.used_bytes(), 105);
    EXPECT_THAT(Lines(ledger),
                testing::ElementsAre(" workspace 5", "chat weights 70", "chat kv_cache 30"));
  }
  EXPECT_EQ(ledger.used_bytes(), 0);
  EXPECT_THAT(Lines(ledger), testing::IsEmpty());
}

TEST(Ledger, KeepsWhatAnotherReservationOfTheSameOwnerHolds) {
  Ledger ledger("cpu", 1000);
  std::optional<Reservation> first = *ledger.Reserve("m", SmallPlan());
  const Reservation second = *ledger.Reserve("m", {{{MemoryKind::kWeights, "more", 7}}});
  first.reset();
  EXPECT_THAT(Lines(ledger), testing::ElementsAre("m weights 7"));
}

TEST(Ledger, GrantsAPlanThatFillsTheBudgetExactly) {
  Ledger ledger("cpu", 100);
  EXPECT_TRUE(ledger.Reserve("m", SmallPlan()).ok());
}

TEST(Ledger, RefusesWholePlansWithNeededFreeAndBreakdown) {
  Ledger ledger("cpu", 150'000'000);
  const Reservation held = *ledger.Reserve("a", {{{MemoryKind::kWeights, "w", 60'000'000}}});
  const auto refused = ledger.Reserve("b", {{{MemoryKind::kWeights, "w", 50'000'000},
                                             {MemoryKind::kKvCache, "kv pages", 50'000'000}}});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused.status()), "OUT_OF_MEMORY_BUDGET");
  EXPECT_EQ(refused.status().message(),
            "b needs 100.0 MB on cpu, 90.0 MB of 150.0 MB are free: "
            "weights 50.0 MB, kv_cache 50.0 MB");
  EXPECT_EQ(ledger.used_bytes(), 60'000'000);
  EXPECT_THAT(Lines(ledger), testing::ElementsAre("a weights 60000000"));
}

TEST(Ledger, RefusesAPlanTooLargeToCount) {
  Ledger ledger("cpu", kMax - 1);
  const auto refused =
      ledger.Reserve("m", {{{MemoryKind::kWeights, "a", kMax}, {MemoryKind::kWeights, "b", kMax}}});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Reservation, MovesWithoutGivingBackTwice) {
  Ledger ledger("cpu", 1000);
  Reservation a = *ledger.Reserve("a", SmallPlan());
  Reservation b = std::move(a);
  EXPECT_EQ(b.bytes(), 100);
  EXPECT_EQ(ledger.used_bytes(), 100);
  Reservation& same = b;
  b = std::move(same);
  EXPECT_EQ(b.bytes(), 100);
  b = *ledger.Reserve("c", {{{MemoryKind::kOther, "x", 1}}});
  EXPECT_THAT(Lines(ledger), testing::ElementsAre("c other 1"));
  b = Reservation();
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(Ledger, StaysExactUnderThreads) {
  Ledger ledger("cpu", 150);  // one plan at a time fits
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger] {
      for (int i = 0; i < 2000; ++i) {
        const auto reservation = ledger.Reserve("m", SmallPlan());
        EXPECT_LE(ledger.used_bytes(), 150);
        for (const Ledger::Entry& entry : ledger.Snapshot()) EXPECT_GT(entry.bytes, 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger.used_bytes(), 0);
}

}  // namespace
}  // namespace nibble
