// The planner's promises, one by one, on sequences that are only numbers.
#include "engine/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

namespace nibble {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1000);

// A scheduler, its pages, and sequences that "sample" a token when their rows are done.
class World {
 public:
  explicit World(int64_t pages, PlanLimits limits = {.max_rows = 64, .max_running = 16})
      : limits_(limits), pool(pages), scheduler(&pool) {}

  Schedulable* Add(int64_t prompt, Priority priority = Priority::kNormal, absl::Time now = kNow) {
    sequences_.push_back(std::make_unique<Schedulable>(&pool));
    Schedulable* const sequence = sequences_.back().get();
    sequence->num_tokens = prompt;
    sequence->rank = MakeRank(now, priority, ++arrivals_, 0);
    scheduler.Add(sequence);
    return sequence;
  }

  // Plans a step and carries it out.
  const StepPlan& Step() {
    scheduler.Plan(limits_, &plan);
    for (const PlannedRows& part : plan.parts) {
      EXPECT_LE(part.num_rows, part.sequence->num_remaining());
      part.sequence->num_computed += part.num_rows;
      EXPECT_EQ(part.sequence->pages.Missing(part.sequence->num_computed), 0);
      if (part.sequence->num_remaining() == 0) ++part.sequence->num_tokens;
    }
    EXPECT_LE(plan.num_rows, limits_.max_rows);
    EXPECT_LE(static_cast<int64_t>(scheduler.running().size()), limits_.max_running);
    return plan;
  }
  int64_t RowsOf(const Schedulable* sequence) const {
    int64_t rows = 0;
    for (const PlannedRows& part : plan.parts)
      rows += part.sequence == sequence ? part.num_rows : 0;
    return rows;
  }

 private:
  PlanLimits limits_;

 public:
  PagePool pool;
  Scheduler scheduler;
  StepPlan plan;

 private:
  std::vector<std::unique_ptr<Schedulable>> sequences_;
  uint64_t arrivals_ = 0;
};

TEST(Scheduler, ComputesAPromptThenOneRowAStep) {
  World world(100);
  Schedulable* const a = world.Add(10);
  world.Step();
  EXPECT_EQ(world.RowsOf(a), 10);
  EXPECT_EQ(world.plan.decode_rows, 0);
  world.Step();
  EXPECT_EQ(world.RowsOf(a), 1);
  EXPECT_EQ(world.plan.decode_rows, 1);
}

TEST(Scheduler, CutsALongPromptIntoChunks) {
  World world(100, {.max_rows = 7, .max_running = 16});
  Schedulable* const a = world.Add(20);
  for (const int64_t rows : {7, 7, 6, 1}) {
    world.Step();
    EXPECT_EQ(world.RowsOf(a), rows);
  }
}

TEST(Scheduler, DecodesEveryoneWhileAPromptIsComputed) {
  World world(100, {.max_rows = 16, .max_running = 16});
  Schedulable* const a = world.Add(3);
  Schedulable* const b = world.Add(3);
  world.Step();
  Schedulable* const c = world.Add(40);
  world.Step();
  EXPECT_EQ(world.RowsOf(a), 1);
  EXPECT_EQ(world.RowsOf(b), 1);
  EXPECT_EQ(world.RowsOf(c), 14);
  EXPECT_EQ(world.plan.decode_rows, 2);
}

TEST(Scheduler, KeepsAQuarterOfAFullStepForPrompts) {
  World world(100, {.max_rows = 8, .max_running = 8});
  for (int i = 0; i < 8; ++i) world.Add(1);
  world.Step();
  Schedulable* const first = world.scheduler.running().front();
  world.scheduler.Remove(first);
  Schedulable* const late = world.Add(30);
  world.Step();
  EXPECT_EQ(world.RowsOf(late), 2);
  EXPECT_EQ(world.plan.decode_rows, 6);
  EXPECT_EQ(world.plan.num_rows, 8);
}

TEST(Scheduler, DecodesInTurnWhenNotAllFit) {
  World world(100, {.max_rows = 3, .max_running = 8});
  std::vector<Schedulable*> all;
  for (int i = 0; i < 8; ++i) all.push_back(world.Add(1));
  for (int step = 0; step < 100; ++step) world.Step();
  int64_t least = INT64_MAX, most = 0;
  for (const Schedulable* sequence : all) {
    least = std::min(least, sequence->num_tokens);
    most = std::max(most, sequence->num_tokens);
  }
  EXPECT_GT(least, 30);
  EXPECT_LE(most - least, 3);
}

TEST(Scheduler, MakesProgressOnBothSidesOfAStepOfOneRow) {
  World world(100, {.max_rows = 1, .max_running = 8});
  Schedulable* const a = world.Add(1);
  world.Step();
  Schedulable* const b = world.Add(10);
  for (int step = 0; step < 20; ++step) world.Step();
  EXPECT_GE(b->num_computed, 10);
  EXPECT_GE(a->num_computed, 8);
}

TEST(Scheduler, AdmitsByPriorityThenArrival) {
  World world(100, {.max_rows = 10, .max_running = 1});
  Schedulable* const low = world.Add(4, Priority::kLow);
  Schedulable* const normal = world.Add(4);
  Schedulable* const high = world.Add(4, Priority::kHigh);
  world.Step();
  EXPECT_EQ(world.RowsOf(high), 4);
  world.scheduler.Remove(high);
  world.Step();
  EXPECT_EQ(world.RowsOf(normal), 4);
  world.scheduler.Remove(normal);
  world.Step();
  EXPECT_EQ(world.RowsOf(low), 4);
}

TEST(Scheduler, LetsAnOldLowRequestPassNewHighOnes) {
  World world(100, {.max_rows = 10, .max_running = 1});
  Schedulable* const low = world.Add(4, Priority::kLow, kNow);
  world.Add(4, Priority::kHigh, kNow + absl::Seconds(21));
  world.Step();
  EXPECT_EQ(world.RowsOf(low), 4);
}

TEST(Scheduler, PreemptsTheWorstRankedWhenPagesRunOut) {
  World world(4, {.max_rows = 64, .max_running = 8});
  Schedulable* const a = world.Add(16);
  Schedulable* const b = world.Add(16);
  while (world.pool.num_free() > 0) world.Step();
  // Both hold two pages; when they need a third, the younger one gives way, tokens kept.
  while (world.plan.preemptions == 0) world.Step();
  EXPECT_TRUE(a->running);
  EXPECT_FALSE(b->running);
  EXPECT_EQ(b->num_computed, 0);
  EXPECT_EQ(b->pages.size(), 0);
  EXPECT_EQ(b->num_tokens, 33);
  EXPECT_EQ(b->preemptions, 1);
  world.scheduler.Remove(a);
  world.Step();
  EXPECT_EQ(world.RowsOf(b), 33);
}

TEST(Scheduler, DoesNotAdmitIntoPagesThatRunnersNeedSoon) {
  World world(5, {.max_rows = 64, .max_running = 8});
  world.Add(16);
  world.Add(16);
  world.Step();
  // Two running sequences have a page each; three are free, two of them spoken for.
  Schedulable* const c = world.Add(32);
  world.Step();
  EXPECT_FALSE(c->running);
}

TEST(Scheduler, AdmitsNobodyPastOneThatWaits) {
  World world(8, {.max_rows = 64, .max_running = 8});
  world.Add(64);
  world.Step();
  Schedulable* const large = world.Add(100);
  Schedulable* const small = world.Add(1);
  world.Step();
  EXPECT_FALSE(large->running);
  EXPECT_FALSE(small->running);
}

TEST(Scheduler, GivesAHighRequestTheRoomOfAYoungerLowOne) {
  World world(4, {.max_rows = 64, .max_running = 8});
  Schedulable* const low = world.Add(60, Priority::kLow);
  world.Step();
  Schedulable* const high = world.Add(40, Priority::kHigh);
  world.Step();
  EXPECT_TRUE(high->running);
  EXPECT_FALSE(low->running);
  EXPECT_EQ(world.plan.preemptions, 1);
  EXPECT_EQ(world.RowsOf(high), 40);
}

TEST(Scheduler, GivesAHighRequestTheSlotOfALowOne) {
  World world(100, {.max_rows = 64, .max_running = 2});
  world.Add(4);
  Schedulable* const low = world.Add(4, Priority::kLow);
  world.Step();
  Schedulable* const high = world.Add(4, Priority::kHigh);
  world.Step();
  EXPECT_TRUE(high->running);
  EXPECT_FALSE(low->running);
}

TEST(Scheduler, PreemptsNobodyInVain) {
  World world(6, {.max_rows = 64, .max_running = 8});
  world.Add(48, Priority::kHigh);
  Schedulable* const low = world.Add(16, Priority::kLow);
  world.Step();
  ASSERT_TRUE(low->running);
  // Even with the low one's page there is not enough for this one beside the high one.
  Schedulable* const normal = world.Add(60);
  world.Step();
  EXPECT_TRUE(low->running);
  EXPECT_FALSE(normal->running);
}

TEST(Scheduler, RemovesInAnyState) {
  World world(10);
  Schedulable* const a = world.Add(20);
  Schedulable* const b = world.Add(20);
  world.scheduler.Remove(b);
  world.Step();
  world.scheduler.Remove(a);
  EXPECT_TRUE(world.scheduler.empty());
  EXPECT_EQ(world.pool.num_used(), 0);
}

TEST(SchedulerDeathTest, TakesNoSequenceThatCanNeverFit) {
  World world(2);
  EXPECT_DEATH(world.Add(33), "a sequence fits the pool alone");
}

// Every plan with sequences makes progress, and everyone ends.
TEST(Scheduler, StarvesNobodyUnderRandomLoad) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    const auto max_rows = static_cast<int64_t>(1 + random() % 40);
    World world(static_cast<int64_t>(8 + random() % 30),
                {.max_rows = max_rows, .max_running = 1 + static_cast<int64_t>(random() % 12)});
    const int64_t largest = world.pool.num_pages() * kPageSlots - 1;
    std::map<Schedulable*, int64_t> ends_at;
    for (int step = 0; step < 3000 || !world.scheduler.empty(); ++step) {
      ASSERT_LT(step, 100000);
      if (step < 500 && random() % 4 == 0) {
        const int64_t prompt = 1 + static_cast<int64_t>(random()) % (largest / 2);
        const int64_t answer = 1 + static_cast<int64_t>(random() % 60);
        Schedulable* const sequence = world.Add(prompt, static_cast<Priority>(random() % 3),
                                                kNow + step * absl::Milliseconds(10));
        ends_at[sequence] = std::min(largest, prompt + answer);
      }
      const bool work = !world.scheduler.empty();
      world.Step();
      ASSERT_EQ(world.plan.num_rows > 0, work);
      const std::vector<Schedulable*> running = world.scheduler.running();
      for (Schedulable* sequence : running) {
        if (sequence->num_tokens >= ends_at[sequence]) world.scheduler.Remove(sequence);
      }
    }
    EXPECT_EQ(world.pool.num_used(), 0);
  }
}

}  // namespace
}  // namespace nibble
