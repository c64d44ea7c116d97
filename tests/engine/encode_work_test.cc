// Embeddings of one model: order, settings, truncation, refusals, ends.
#include "engine/encode_work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/status.h"
#include "tests/engine/simulation.h"
#include "tests/support/fake_tokenizer.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

using Tokens = std::vector<int32_t>;

FakeModelOptions Encoder() {
  FakeModelOptions options;
  options.embeds = true;
  options.vocab = 400;
  options.embedding.present = true;
  options.embedding.pooling = Pooling::kMean;
  options.embedding.normalize = true;
  options.embedding.max_seq_length = 10;
  options.embedding.prompts = {{"query", "q: "}, {"passage", ""}};
  options.tokenizer = std::make_shared<FakeTokenizer>();
  return options;
}

EmbedRequest Texts(const std::vector<std::string>& texts) {
  EmbedRequest request;
  for (const std::string& text : texts) request.inputs.emplace_back(TextPrompt{text});
  return request;
}

EmbedRequest Ids(const std::vector<Tokens>& inputs) {
  EmbedRequest request;
  for (const Tokens& ids : inputs) request.inputs.emplace_back(TokenPrompt{ids});
  return request;
}

EmbedResult Embed(const EmbedRequest& request, const FakeModelOptions& options = Encoder()) {
  Simulation simulation;
  simulation.AddModel("e", options);
  const auto sink = simulation.Submit(request);
  simulation.Run();
  EXPECT_TRUE(sink->status().ok()) << sink->status();
  return sink->result();
}

absl::Status Refused(const EmbedRequest& request, const FakeModelOptions& options = Encoder(),
                     const SimulationOptions& simulation_options = {}) {
  Simulation simulation(simulation_options);
  simulation.AddModel("e", options);
  return simulation.Refused(request);
}

std::vector<float> One(const Tokens& ids) { return Embed(Ids({ids})).embeddings.at(0).values; }

TEST(EncodeWork, AnswersInOrderWhateverTheSteps) {
  FakeModelOptions options = Encoder();
  options.limits.max_rows = 12;
  std::vector<Tokens> inputs;
  for (int32_t i = 0; i < 40; ++i) inputs.push_back(Tokens(static_cast<size_t>(1 + i % 9), i));
  const EmbedResult result = Embed(Ids(inputs), options);
  ASSERT_THAT(result.embeddings, SizeIs(40));
  int64_t tokens = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(result.embeddings[i].values, One(inputs[i])) << i;
    EXPECT_EQ(result.embeddings[i].num_tokens, static_cast<int32_t>(inputs[i].size()));
    EXPECT_FALSE(result.embeddings[i].truncated);
    tokens += static_cast<int64_t>(inputs[i].size());
  }
  EXPECT_EQ(result.usage.prompt_tokens, tokens);
  EXPECT_EQ(result.model, "e");
}

TEST(EncodeWork, PutsSpecialTokensAroundText) {
  const EmbedResult result = Embed(Texts({"abc"}));
  EXPECT_EQ(result.embeddings[0].num_tokens, 5);
  EXPECT_EQ(result.embeddings[0].values,
            One({FakeTokenizer::kBegin, 'a', 'b', 'c', FakeTokenizer::kEnd}));
}

TEST(EncodeWork, EmbedsEmptyText) { EXPECT_EQ(Embed(Texts({""})).embeddings[0].num_tokens, 2); }

TEST(EncodeWork, PutsTheNamedPromptBeforeTextAndNotBeforeIds) {
  EmbedRequest request = Texts({"x"});
  request.inputs.emplace_back(TokenPrompt{{'x'}});
  request.prompt_name = "query";
  const EmbedResult result = Embed(request);
  EXPECT_EQ(result.embeddings[0].values,
            One({FakeTokenizer::kBegin, 'q', ':', ' ', 'x', FakeTokenizer::kEnd}));
  EXPECT_EQ(result.embeddings[1].values, One({'x'}));
}

TEST(EncodeWork, TakesTheModelsDefaultPrompt) {
  FakeModelOptions options = Encoder();
  options.embedding.default_prompt_name = "query";
  EXPECT_EQ(Embed(Texts({"x"}), options).embeddings[0].num_tokens, 6);
  EmbedRequest other = Texts({"x"});
  other.prompt_name = "passage";
  EXPECT_EQ(Embed(other, options).embeddings[0].num_tokens, 3);
}

TEST(EncodeWork, CutsLongTextBetweenItsSpecialTokens) {
  EmbedRequest request = Texts({"abcdefghijkl"});
  request.truncation = Truncation::kRight;
  const EmbedResult right = Embed(request);
  EXPECT_TRUE(right.embeddings[0].truncated);
  EXPECT_EQ(right.embeddings[0].num_tokens, 10);
  EXPECT_EQ(right.embeddings[0].values, One({FakeTokenizer::kBegin, 'a', 'b', 'c', 'd', 'e', 'f',
                                             'g', 'h', FakeTokenizer::kEnd}));
  request.truncation = Truncation::kLeft;
  EXPECT_EQ(Embed(request).embeddings[0].values, One({FakeTokenizer::kBegin, 'e', 'f', 'g', 'h',
                                                      'i', 'j', 'k', 'l', FakeTokenizer::kEnd}));
}

TEST(EncodeWork, CutsLongIdsAsTheyAre) {
  EmbedRequest request = Ids({{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}});
  request.truncation = Truncation::kRight;
  EXPECT_EQ(Embed(request).embeddings[0].values, One({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  request.truncation = Truncation::kLeft;
  EXPECT_EQ(Embed(request).embeddings[0].values, One({3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
}

TEST(EncodeWork, RefusesALongInputUnlessToldToCut) {
  const absl::Status status = Refused(Texts({"short", "much too long"}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "INPUT_TOO_LONG");
  EXPECT_EQ(FieldOf(status), "inputs[1]");
  EXPECT_THAT(std::string(status.message()), HasSubstr("inputs[1] has 15 tokens"));
}

TEST(EncodeWork, KeepsDifferentSettingsApart) {
  Simulation simulation;
  simulation.AddModel("e", Encoder());
  EmbedRequest plain = Texts({"x"}), first = Texts({"x"}), raw = Texts({"x"});
  plain.pooling = Pooling::kMean;
  first.dimensions = 3;
  raw.normalize = false;
  const auto a = simulation.Submit(plain);
  const auto b = simulation.Submit(first);
  const auto c = simulation.Submit(raw);
  simulation.Run();
  const std::vector<float> all = a->result().embeddings[0].values;
  EXPECT_THAT(all, SizeIs(8));
  EXPECT_EQ(b->result().embeddings[0].values, std::vector<float>(all.begin(), all.begin() + 3));
  EXPECT_NE(c->result().embeddings[0].values, all);
}

TEST(EncodeWork, RefusesEveryBadRequestByItsCode) {
  struct Case {
    EmbedRequest request;
    const char* reason;
    const char* field;
  };
  EmbedRequest dimensions = Texts({"x"}), negative = Texts({"x"}), prompt = Texts({"x"});
  dimensions.dimensions = 9;
  negative.dimensions = -1;
  prompt.prompt_name = "nope";
  const std::vector<Case> cases = {
      {EmbedRequest{}, "NO_INPUTS", "inputs"},
      {dimensions, "VALUE_OUT_OF_RANGE", "dimensions"},
      {negative, "VALUE_OUT_OF_RANGE", "dimensions"},
      {prompt, "UNKNOWN_PROMPT_NAME", "prompt_name"},
      {Ids({{1}, {}}), "EMPTY_PROMPT", "inputs[1]"},
      {Ids({{1}, {1}, {258}}), "TOKEN_OUT_OF_RANGE", "inputs[2]"},
      {Ids({{-1}}), "TOKEN_OUT_OF_RANGE", "inputs[0]"},
      {Texts({"a", "\xff"}), "INVALID_UTF8", "inputs[1]"},
      {Texts(std::vector<std::string>(2049, "x")), "OVER_CAP", "inputs"},
      {Texts({std::string(5 << 20, 'x')}), "OVER_CAP", "inputs"},
  };
  for (const Case& each : cases) {
    const absl::Status status = Refused(each.request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(ReasonOf(status), each.reason);
    EXPECT_EQ(FieldOf(status), each.field);
  }
}

TEST(EncodeWork, RefusesWhatTheModelCannotDo) {
  FakeModelOptions decoder;
  absl::Status status = Refused({.model = "e", .inputs = {TokenPrompt{{1}}}}, decoder);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "MODEL_CANNOT_EMBED");

  FakeModelOptions bare = Encoder();
  bare.embedding.present = false;
  status = Refused(Texts({"x"}), bare);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(FieldOf(status), "pooling");
  EmbedRequest pooled = Texts({"x"});
  pooled.pooling = Pooling::kCls;
  EXPECT_THAT(Embed(pooled, bare).embeddings, SizeIs(1));

  FakeModelOptions no_tokenizer = Encoder();
  no_tokenizer.tokenizer = nullptr;
  status = Refused(Texts({"x"}), no_tokenizer);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "NO_TOKENIZER");
  EXPECT_THAT(Embed(Ids({{1}}), no_tokenizer).embeddings, SizeIs(1));
}

TEST(EncodeWork, EndsByCancellationAndDeadlineBetweenSteps) {
  Simulation simulation;
  FakeModelOptions options = Encoder();
  options.limits.max_rows = 10;
  ServedModel* const model = simulation.AddModel("e", options);
  RequestId id = 0;
  const auto cancelled = simulation.Submit(Texts(std::vector<std::string>(50, "text")), &id);
  EmbedRequest late = Texts(std::vector<std::string>(50, "text"));
  late.context.deadline = simulation.clock.Now() + absl::Milliseconds(15);
  const auto expired = simulation.Submit(late);
  const auto fine = simulation.Submit(Texts({"x"}));
  for (int step = 0; step < 3; ++step) simulation.Step();
  simulation.Cancel(id, absl::CancelledError("left"));
  simulation.Run();
  EXPECT_EQ(cancelled->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(expired->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(fine->status().ok());
  EXPECT_EQ(model->Stats().finished.at("cancelled"), 1);
  EXPECT_EQ(model->Stats().finished.at("deadline"), 1);
  EXPECT_EQ(model->Stats().running[1], 0);
  EXPECT_EQ(model->Stats().waiting[1], 0);
  EXPECT_EQ(model->admission().waiting_requests(), 0);
}

TEST(EncodeWork, FailsOnlyTheRequestsOfAFaultyStep) {
  Simulation simulation;
  FakeModelOptions options = Encoder();
  options.limits.max_sequences = 1;
  options.faults_to_come = std::make_shared<std::atomic<int>>(1);
  ServedModel* const model = simulation.AddModel("e", options);
  const auto failed = simulation.Submit(Texts({"a", "b"}));
  const auto fine = simulation.Submit(Texts({"c"}));
  simulation.Run();
  EXPECT_EQ(failed->status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(fine->status().ok());
  EXPECT_EQ(model->Stats().finished.at("error"), 1);
}

TEST(EncodeWork, CountsAndTimes) {
  SimulationOptions options;
  options.per_step = absl::Milliseconds(10);
  options.per_row = absl::ZeroDuration();
  Simulation simulation(options);
  ServedModel* const model = simulation.AddModel("e", Encoder());
  EmbedRequest request = Texts({"abc", "d"});
  request.context.received = simulation.clock.Now() - absl::Milliseconds(4);
  const auto sink = simulation.Submit(request);
  simulation.Run();
  EXPECT_DOUBLE_EQ(sink->result().timing.queue_ms, 4);
  EXPECT_DOUBLE_EQ(sink->result().timing.prefill_ms, 10);
  const ModelStats stats = model->Stats();
  EXPECT_EQ(stats.prompt_tokens_total[1], 8);
  EXPECT_EQ(stats.prompt_tokens[1].count(), 1);
  EXPECT_NEAR(stats.e2e_latency[1].sum(), 0.014, 1e-9);
  EXPECT_NEAR(stats.queue_time[1].sum(), 0.004, 1e-9);
  EXPECT_EQ(stats.step_seconds.at("embed").count(), 1);
}

}  // namespace
}  // namespace nibble
