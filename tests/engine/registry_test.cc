// Names, states and leases.
#include "engine/registry.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/served_model.h"
#include "engine/status.h"
#include "tests/support/fake_model.h"

namespace nibble {
namespace {

class RegistryTest : public ::testing::Test {
 protected:
  void Load(const std::string& name, bool embeds = false) {
    FakeModelOptions options;
    options.embeds = embeds;
    ModelDescription description;
    description.name = name;
    description.can_generate = !embeds;
    description.can_embed = embeds;
    ASSERT_TRUE(registry_.BeginLoad(description).ok());
    registry_.FinishLoad(description,
                         std::make_unique<ServedModel>(std::make_unique<FakeModel>(name, options),
                                                       AdmissionLimits{10, 10}));
  }

  ModelRegistry registry_;
};

TEST_F(RegistryTest, LeasesByName) {
  Load("a");
  const auto lease = registry_.Lease("a");
  ASSERT_TRUE(lease.ok());
  EXPECT_EQ((*lease)->model().name(), "a");
  EXPECT_EQ(registry_.Lease("b").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RegistryTest, IsUnusedOnlyWithoutLeases) {
  Load("a");
  {
    const auto lease = registry_.Lease("a");
    EXPECT_FALSE(registry_.WaitUnused("a", absl::ZeroDuration()));
    EXPECT_FALSE(registry_.WaitAllUnused(absl::ZeroDuration()));
  }
  EXPECT_TRUE(registry_.WaitUnused("a", absl::ZeroDuration()));
  EXPECT_TRUE(registry_.WaitAllUnused(absl::ZeroDuration()));
}

TEST_F(RegistryTest, CountsAMovedLeaseOnce) {
  Load("a");
  ModelLease first = *registry_.Lease("a");
  ModelLease second = std::move(first);
  first = ModelLease();
  EXPECT_FALSE(registry_.WaitUnused("a", absl::ZeroDuration()));
  second = ModelLease();
  EXPECT_TRUE(registry_.WaitUnused("a", absl::ZeroDuration()));
}

TEST_F(RegistryTest, WakesWhoWaitsWhenTheLastLeaseEnds) {
  Load("a");
  auto lease = std::make_unique<ModelLease>(*registry_.Lease("a"));
  std::thread waiter([&] { EXPECT_TRUE(registry_.WaitUnused("a", absl::InfiniteDuration())); });
  lease.reset();
  waiter.join();
}

TEST_F(RegistryTest, LetsNothingEnterOnceItUnloads) {
  Load("a");
  const auto lease = registry_.Lease("a");
  int entered = 0;
  EXPECT_TRUE(registry_.EnterWhileOpen(*lease, [&] { ++entered; }).ok());
  ASSERT_TRUE(registry_.BeginUnload("a").ok());
  const absl::Status refused = registry_.EnterWhileOpen(*lease, [&] { ++entered; });
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(refused), "MODEL_UNLOADING");
  EXPECT_EQ(entered, 1);
  EXPECT_EQ(registry_.BeginUnload("a").code(), absl::StatusCode::kUnavailable);
}

TEST_F(RegistryTest, LetsNothingEnterOnceItIsClosed) {
  Load("a");
  const auto lease = registry_.Lease("a");
  registry_.Close();
  EXPECT_EQ(ReasonOf(registry_.EnterWhileOpen(*lease, [] {})), "DRAINING");
  EXPECT_EQ(ReasonOf(registry_.Lease("a").status()), "DRAINING");
  EXPECT_EQ(ReasonOf(registry_.Lease("", Operation::kGenerate).status()), "DRAINING");
  ModelDescription description;
  description.name = "b";
  EXPECT_EQ(ReasonOf(registry_.BeginLoad(description)), "DRAINING");
}

TEST_F(RegistryTest, FindsTheOnlyModelForAnOperation) {
  Load("e", /*embeds=*/true);
  EXPECT_EQ(registry_.Lease("", Operation::kGenerate).status().code(), absl::StatusCode::kNotFound);
  ModelDescription loading;
  loading.name = "later";
  ASSERT_TRUE(registry_.BeginLoad(loading).ok());
  EXPECT_EQ(ReasonOf(registry_.Lease("", Operation::kGenerate).status()), "MODEL_LOADING");
  registry_.AbandonLoad("later");
  Load("a");
  EXPECT_EQ((*registry_.Lease("", Operation::kGenerate))->model().name(), "a");
  Load("b");
  EXPECT_EQ(ReasonOf(registry_.Lease("", Operation::kGenerate).status()), "MODEL_AMBIGUOUS");
  EXPECT_EQ((*registry_.Lease("", Operation::kEmbed))->model().name(), "e");
}

TEST_F(RegistryTest, FreesTheNameAfterAnUnload) {
  Load("a");
  ASSERT_TRUE(registry_.BeginUnload("a").ok());
  EXPECT_EQ(registry_.Get("a")->state, ModelState::kUnloading);
  EXPECT_NE(registry_.FinishUnload("a"), nullptr);
  EXPECT_EQ(registry_.Get("a").status().code(), absl::StatusCode::kNotFound);
  Load("a");
}

}  // namespace
}  // namespace nibble
