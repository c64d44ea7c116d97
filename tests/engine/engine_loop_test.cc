// Several models and both operations share one thread.
#include "engine/engine_loop.h"

#include <gtest/gtest.h>

#include "engine/status.h"
#include "tests/engine/simulation.h"

namespace nibble {
namespace {

GenerateRequest Generate(const std::string& model, int64_t prompt, int32_t max_tokens) {
  GenerateRequest request =
      TokensRequest(std::vector<int32_t>(static_cast<size_t>(prompt), 1), max_tokens);
  request.model = model;
  return request;
}

EmbedRequest Embed(const std::string& model, size_t inputs) {
  EmbedRequest request;
  request.model = model;
  for (size_t i = 0; i < inputs; ++i) {
    request.inputs.emplace_back(TokenPrompt{std::vector<int32_t>(16, 1)});
  }
  return request;
}

// Two models that generate and one that embeds, each with more work than the test lets it do.
class Shared : public ::testing::Test {
 protected:
  Shared() : simulation_({.step_budget_ms = 10, .per_row = absl::Milliseconds(1)}) {
    FakeModelOptions encoder;
    encoder.embeds = true;
    encoder.embedding.present = true;
    models_ = {Add("a", {}), Add("b", {}), Add("e", encoder)};
  }

  ServedModel* Add(const std::string& name, FakeModelOptions options) {
    options.on_step = [this, name](int64_t rows) {
      busy_ms_[name] += 1.0 + static_cast<double>(rows);
      order_ += name;
    };
    return simulation_.AddModel(name, options);
  }

  Simulation simulation_;
  std::vector<ServedModel*> models_;
  std::map<std::string, double> busy_ms_;
  std::string order_;
};

TEST_F(Shared, EachClassGetsTheSameTime) {
  // a decodes one row at a time in short steps, b many, e is always full.
  simulation_.Submit(Generate("a", 1, 250));
  for (int i = 0; i < 30; ++i) simulation_.Submit(Generate("b", 8, 240));
  simulation_.Submit(Embed("e", 2000));
  for (int step = 0; step < 300; ++step) simulation_.Step();
  EXPECT_NEAR(busy_ms_["a"], busy_ms_["b"], 60);
  EXPECT_NEAR(busy_ms_["a"], busy_ms_["e"], 60);
  EXPECT_GT(busy_ms_["a"], 300);
}

TEST_F(Shared, NobodyWaitsForALongRequestOfAnother) {
  simulation_.Submit(Embed("e", 2000));
  for (int step = 0; step < 20; ++step) simulation_.Step();
  const auto sink = simulation_.Submit(Generate("a", 1, 1));
  int steps = 0;
  while (!sink->done()) {
    simulation_.Step();
    ++steps;
  }
  EXPECT_LE(steps, 5);
}

TEST_F(Shared, AnswersAreThoseOfAModelAlone) {
  const auto a = simulation_.Submit(Generate("a", 20, 30));
  const auto b = simulation_.Submit(Generate("b", 20, 30));
  const auto e = simulation_.Submit(Embed("e", 50));
  simulation_.Run();
  EXPECT_TRUE(e->status().ok());
  EXPECT_EQ(a->answer().token_ids, b->answer().token_ids);
  Simulation alone;
  alone.AddModel("a", {});
  const auto sink = alone.Submit(Generate("a", 20, 30));
  alone.Run();
  EXPECT_EQ(a->answer().token_ids, sink->answer().token_ids);
}

TEST_F(Shared, AFaultOfOneModelLeavesTheOthersAlone) {
  FakeModelOptions broken;
  broken.faults_to_come = std::make_shared<std::atomic<int>>(1000);
  Add("x", broken);
  const auto failing = simulation_.Submit(Generate("x", 5, 5));
  const auto fine = simulation_.Submit(Generate("a", 5, 5));
  simulation_.Run();
  EXPECT_EQ(failing->status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(fine->status().ok());
}

TEST_F(Shared, HasNothingToDoWhenNothingCame) {
  EXPECT_FALSE(simulation_.Step());
  simulation_.Submit(Generate("a", 1, 1));
  EXPECT_TRUE(simulation_.Step());
  EXPECT_FALSE(simulation_.Step());
}

}  // namespace
}  // namespace nibble
