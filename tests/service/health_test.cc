// Which names serve, and when.
#include "service/health.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

class FakeHealthService : public grpc::HealthCheckServiceInterface {
 public:
  void SetServingStatus(const std::string& name, bool serving) override { names[name] = serving; }
  void SetServingStatus(bool) override {}
  std::map<std::string, bool> names;
};

using Names = std::map<std::string, bool>;

class HealthTest : public ::testing::Test {
 protected:
  HealthTest() { health_.Attach(&service_); }
  FakeHealthService service_;
  Health health_;
};

TEST_F(HealthTest, TheProcessServesBeforeItsModelsDo) {
  EXPECT_EQ(service_.names, (Names{{"", true}, {"nibble.v1.Inference", false}}));
}

TEST_F(HealthTest, EveryModelHasItsOwnName) {
  health_.SetReady(true);
  health_.SetModel("a", true);
  EXPECT_TRUE(health_.Serves("a"));
  EXPECT_FALSE(health_.Serves("b"));
  EXPECT_EQ(service_.names,
            (Names{{"", true}, {"nibble.v1.Inference", true}, {"nibble.v1.Inference/a", true}}));
  health_.SetModel("a", false);
  EXPECT_FALSE(health_.Serves("a"));
  EXPECT_FALSE(service_.names["nibble.v1.Inference/a"]);
  EXPECT_TRUE(service_.names["nibble.v1.Inference"]);
}

TEST_F(HealthTest, AStallHidesEveryNameUntilItEnds) {
  health_.SetReady(true);
  health_.SetModel("a", true);
  health_.SetStalled(true);
  health_.SetModel("b", true);
  for (const auto& [name, serving] : service_.names) EXPECT_FALSE(serving) << name;
  EXPECT_EQ(service_.names.size(), 4u);
  health_.SetStalled(false);
  for (const auto& [name, serving] : service_.names) EXPECT_TRUE(serving) << name;
}

TEST_F(HealthTest, ADrainIsForEver) {
  health_.BeginDrain();
  health_.SetReady(true);
  health_.SetModel("a", true);
  health_.SetStalled(false);
  for (const auto& [name, serving] : service_.names) EXPECT_FALSE(serving) << name;
}

TEST_F(HealthTest, ALaterListenerHearsWhatWasSaidBefore) {
  health_.SetModel("a", true);
  FakeHealthService second;
  health_.Attach(&second);
  EXPECT_EQ(second.names, service_.names);
}

}  // namespace
}  // namespace nibble
