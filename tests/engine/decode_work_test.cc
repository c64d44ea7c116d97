// Answers of one model: crowd, chunks, preemption, stops, limits, ends at every stage.
#include "engine/decode_work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/status.h"
#include "tests/engine/simulation.h"
#include "tests/support/fake_tokenizer.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Tokens = std::vector<int32_t>;

Tokens Prompt(int64_t length, int32_t seed = 1) {
  Tokens ids(static_cast<size_t>(length));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>((static_cast<size_t>(seed) * 31 + i * i) % 64);
  }
  return ids;
}

GenerateRequest Sampled(int64_t prompt, int32_t max_tokens, int32_t seed) {
  GenerateRequest request = TokensRequest(Prompt(prompt, seed), max_tokens);
  request.sampling.temperature = 1;
  request.sampling.seed = static_cast<uint64_t>(seed);
  return request;
}

Tokens Alone(const GenerateRequest& request, FakeModelOptions options = {}) {
  Simulation simulation;
  simulation.AddModel("m", options);
  const auto sink = simulation.Submit(request);
  simulation.Run();
  EXPECT_TRUE(sink->status().ok()) << sink->status();
  return sink->answer().token_ids;
}

// A model whose answer to "a" is "bcdefg…".
FakeModelOptions Alphabet() {
  return {.successor = true, .vocab = 400, .tokenizer = std::make_shared<FakeTokenizer>()};
}

GenerateRequest TextRequest(const std::string& text, int32_t max_tokens) {
  GenerateRequest request;
  request.prompt = TextPrompt{text};
  request.add_special_tokens = false;
  request.stopping.max_tokens = max_tokens;
  return request;
}

RecordingSink::Answer Answer(const GenerateRequest& request) {
  Simulation simulation;
  simulation.AddModel("m", Alphabet());
  const auto sink = simulation.Submit(request);
  simulation.Run();
  EXPECT_TRUE(sink->status().ok()) << sink->status();
  return sink->answer();
}

// --- batch does not change the answer ---

TEST(DecodeWork, AnswersTheSameAloneAndAmong63Others) {
  Simulation simulation;
  simulation.AddModel("m", {});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int32_t i = 0; i < 64; ++i) {
    sinks.push_back(simulation.Submit(Sampled(1 + i % 40, 20, i)));
    if (i % 5 == 0) simulation.Step();
  }
  simulation.Run();
  for (int32_t i = 0; i < 64; ++i) {
    EXPECT_EQ(sinks[static_cast<size_t>(i)]->answer().token_ids, Alone(Sampled(1 + i % 40, 20, i)));
  }
}

class ChunkSize : public ::testing::TestWithParam<int64_t> {};

TEST_P(ChunkSize, DoesNotChangeTheAnswer) {
  FakeModelOptions chunked;
  chunked.limits.max_rows = GetParam();
  for (const int64_t prompt : {1, 15, 16, 17, 100}) {
    const GenerateRequest request = Sampled(prompt, 30, 5);
    EXPECT_EQ(Alone(request, chunked), Alone(request));
  }
}
INSTANTIATE_TEST_SUITE_P(DecodeWork, ChunkSize, ::testing::Values(1, 7, 16, 64));

TEST(DecodeWork, AnswersTheSameWhenPreempted) {
  Simulation simulation;
  ServedModel* const model = simulation.AddModel("m", {.num_pages = 20});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int32_t i = 0; i < 12; ++i) sinks.push_back(simulation.Submit(Sampled(20, 100, i)));
  simulation.Run();
  EXPECT_GT(model->Stats().preemptions_total, 3);
  for (int32_t i = 0; i < 12; ++i) {
    EXPECT_EQ(sinks[static_cast<size_t>(i)]->answer().token_ids, Alone(Sampled(20, 100, i)));
  }
}

TEST(DecodeWork, SamplesEachTokenOnceWhateverIsComputedAgain) {
  Simulation simulation;
  ServedModel* const model = simulation.AddModel("m", {.num_pages = 20});
  for (int32_t i = 0; i < 12; ++i) simulation.Submit(Sampled(20, 100, i));
  simulation.Run();
  EXPECT_EQ(model->Stats().generation_tokens_total, 12 * 100);
  EXPECT_EQ(model->Stats().prompt_tokens_total[0], 12 * 20);
}

// --- n answers and seeds ---

TEST(DecodeWork, GivesNAnswersThatDifferByTheirIndex) {
  Simulation simulation;
  simulation.AddModel("m", {});
  GenerateRequest request = Sampled(10, 20, 3);
  request.sampling.n = 4;
  const auto sink = simulation.Submit(request);
  simulation.Run();
  ASSERT_TRUE(sink->status().ok());
  EXPECT_EQ(sink->num_answers(), 4u);
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(sink->answer(i).finished());
    EXPECT_EQ(sink->answer(i).last.usage.prompt_tokens, i == 0 ? 10 : 0);
    EXPECT_EQ(sink->answer(i).last.seed, 3u);
    for (int32_t j = 0; j < i; ++j) EXPECT_NE(sink->answer(i).token_ids, sink->answer(j).token_ids);
  }
  EXPECT_EQ(sink->answer(0).token_ids, Alone(Sampled(10, 20, 3)));
}

TEST(DecodeWork, DrawsASeedAndReportsIt) {
  Simulation simulation;
  simulation.AddModel("m", {});
  GenerateRequest request = Sampled(10, 20, 3);
  request.sampling.seed.reset();
  const auto a = simulation.Submit(request);
  const auto b = simulation.Submit(request);
  simulation.Run();
  EXPECT_NE(a->answer().last.seed, b->answer().last.seed);
  EXPECT_NE(a->answer().token_ids, b->answer().token_ids);
  request.sampling.seed = a->answer().last.seed;
  EXPECT_EQ(a->answer().token_ids, Alone(request));
}

// --- how answers end ---

TEST(DecodeWork, EndsAtMaxTokens) {
  const auto answer = Answer(TextRequest("a", 3));
  EXPECT_EQ(answer.text, "bcd");
  EXPECT_EQ(answer.last.finish_reason, FinishReason::kLength);
  EXPECT_EQ(answer.last.usage.completion_tokens, 3);
  EXPECT_EQ(answer.last.usage.prompt_tokens, 1);
}

TEST(DecodeWork, ClipsMaxTokensToTheContext) {
  for (const std::optional<int32_t> max_tokens : {std::optional<int32_t>(), std::optional(5000)}) {
    GenerateRequest request = TokensRequest(Prompt(250), 1);
    request.stopping.max_tokens = max_tokens;
    Simulation simulation;
    simulation.AddModel("m", {.max_context = 256});
    const auto sink = simulation.Submit(request);
    simulation.Run();
    EXPECT_THAT(sink->answer().token_ids, SizeIs(6));
    EXPECT_EQ(sink->answer().last.finish_reason, FinishReason::kLength);
  }
}

TEST(DecodeWork, FillsTheLastPageOfTheSmallestPool) {
  Simulation simulation;
  simulation.AddModel("m", {.max_context = 64, .num_pages = 4});
  const auto sink = simulation.Submit(TokensRequest(Prompt(1), 1000));
  simulation.Run();
  EXPECT_THAT(sink->answer().token_ids, SizeIs(63));
}

TEST(DecodeWork, EndsAtAStopStringAcrossTokens) {
  GenerateRequest request = TextRequest("a", 100);
  request.stopping.stop = {"zzz", "efg"};
  const auto answer = Answer(request);
  EXPECT_EQ(answer.text, "bcd");
  EXPECT_THAT(answer.token_ids, ElementsAre('b', 'c', 'd'));
  EXPECT_EQ(answer.last.finish_reason, FinishReason::kStop);
  EXPECT_EQ(answer.last.stop_text, "efg");
  EXPECT_EQ(answer.last.stop_token_id, std::nullopt);
  EXPECT_EQ(answer.last.usage.completion_tokens, 6);
}

TEST(DecodeWork, IncludesTheStopStringWhenAsked) {
  GenerateRequest request = TextRequest("a", 100);
  request.stopping.stop = {"efg"};
  request.stopping.include_stop = true;
  const auto answer = Answer(request);
  EXPECT_EQ(answer.text, "bcdefg");
  EXPECT_THAT(answer.token_ids, SizeIs(6));
}

TEST(DecodeWork, EndsAtAStopTokenAndCountsIt) {
  GenerateRequest request = TextRequest("a", 100);
  request.stopping.stop_token_ids = {'e'};
  const auto answer = Answer(request);
  EXPECT_EQ(answer.text, "bcd");
  EXPECT_THAT(answer.token_ids, ElementsAre('b', 'c', 'd'));
  EXPECT_EQ(answer.last.stop_token_id, 'e');
  EXPECT_EQ(answer.last.usage.completion_tokens, 4);

  request.stopping.include_stop = true;
  request.output.logprobs = 0;
  const auto included = Answer(request);
  EXPECT_EQ(included.text, "bcde");
  EXPECT_THAT(included.token_ids, ElementsAre('b', 'c', 'd', 'e'));
  EXPECT_THAT(included.logprobs, SizeIs(4));
}

TEST(DecodeWork, EndsAtTheModelsEndTokenUnlessToldNotTo) {
  GenerateRequest request = TokensRequest({250}, 20);
  const auto answer = Answer(request);
  EXPECT_EQ(answer.last.finish_reason, FinishReason::kStop);
  EXPECT_EQ(answer.last.stop_token_id, FakeTokenizer::kEnd);
  EXPECT_EQ(answer.last.usage.completion_tokens, 7);
  EXPECT_EQ(answer.text.find("</s>"), std::string::npos);

  request.stopping.ignore_eos = true;
  const auto longer = Answer(request);
  EXPECT_EQ(longer.last.finish_reason, FinishReason::kLength);
  EXPECT_EQ(longer.last.usage.completion_tokens, 20);
  EXPECT_EQ(longer.text.find("</s>"), std::string::npos);
}

TEST(DecodeWork, ReleasesHeldTextWhenTheLimitEndsTheAnswer) {
  GenerateRequest request = TextRequest("a", 3);
  request.stopping.stop = {"cde"};
  const auto answer = Answer(request);
  EXPECT_EQ(answer.text, "bcd");
  EXPECT_THAT(answer.token_ids, ElementsAre('b', 'c', 'd'));
  EXPECT_EQ(answer.last.finish_reason, FinishReason::kLength);
}

TEST(DecodeWork, StopsNowhereWithinMinTokens) {
  GenerateRequest request = TextRequest("a", 10);
  request.stopping.min_tokens = 4;
  request.stopping.stop_token_ids = {'c'};
  request.stopping.stop = {"de", "gh"};
  // 'c' may not be drawn, so 'd' comes in its place; "de" is complete too early.
  const auto answer = Answer(request);
  EXPECT_EQ(answer.text, "bdef");
  EXPECT_EQ(answer.last.stop_text, "gh");
}

TEST(DecodeWork, NeverSamplesPastTheTokenizersVocabulary) {
  Simulation simulation;
  simulation.AddModel("m", {.vocab = 400, .tokenizer = std::make_shared<FakeTokenizer>()});
  for (int32_t seed = 0; seed < 20; ++seed) {
    const auto sink = simulation.Submit(Sampled(10, 50, seed));
    simulation.Run();
    for (const int32_t id : sink->answer().token_ids) EXPECT_LT(id, FakeTokenizer::kFirstWord);
  }
}

// --- logprobs ---

TEST(DecodeWork, ReportsLogprobsWithTheTokensBytes) {
  GenerateRequest request = TextRequest("a", 3);
  request.output.logprobs = 2;
  const auto answer = Answer(request);
  ASSERT_THAT(answer.logprobs, SizeIs(3));
  EXPECT_EQ(answer.logprobs[0].token_id, 'b');
  EXPECT_EQ(answer.logprobs[0].token, "b");
  EXPECT_LE(answer.logprobs[0].logprob, 0);
  EXPECT_THAT(answer.logprobs[0].top, SizeIs(2));
}

TEST(DecodeWork, ReportsPromptLogprobsOnceInTheFirstChunkWhateverTheChunkSize) {
  std::vector<TokenLogprobs> expected;
  for (const int64_t max_rows : {64, 1, 7}) {
    GenerateRequest request = TextRequest("prompt logprobs", 3);
    request.output.prompt_logprobs = 1;
    request.sampling.n = 2;
    FakeModelOptions options = Alphabet();
    options.limits.max_rows = max_rows;
    Simulation simulation;
    simulation.AddModel("m", options);
    const auto sink = simulation.Submit(request);
    simulation.Run();
    const std::vector<TokenLogprobs> got = sink->answer(0).prompt_logprobs;
    EXPECT_THAT(sink->answer(1).prompt_logprobs, IsEmpty());
    EXPECT_THAT(sink->answer(0).logprobs, IsEmpty());
    ASSERT_THAT(got, SizeIs(14));
    std::string text;
    for (const TokenLogprobs& token : got) text += token.token;
    EXPECT_EQ(text, "rompt logprobs");
    if (expected.empty()) expected = got;
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].logprob, expected[i].logprob);
  }
}

// --- ends from outside ---

TEST(DecodeWork, CancelsAtEveryStage) {
  for (int stage = 0; stage < 6; ++stage) {
    SCOPED_TRACE(stage);
    Simulation simulation;
    FakeModelOptions options;
    options.limits.max_rows = 8;
    ServedModel* const model = simulation.AddModel("m", options);
    RequestId id = 0;
    const auto sink = simulation.Submit(TokensRequest(Prompt(20), 50), &id);
    const auto other = simulation.Submit(TokensRequest(Prompt(5, 2), 10));
    // 0: in the inbox. 1, 2: in the middle of the prompt. From 3 on: decoding.
    for (int step = 0; step < stage; ++step) simulation.Step();
    simulation.Cancel(id, Error(absl::StatusCode::kAborted, "SLOW_READER", "too slow"));
    simulation.Step();
    EXPECT_TRUE(sink->done());
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kAborted);
    EXPECT_EQ(ReasonOf(sink->status()), "SLOW_READER");
    simulation.Cancel(id, absl::CancelledError("again"));  // ignored
    simulation.Cancel(9999, absl::CancelledError("unknown"));
    simulation.Run();
    EXPECT_TRUE(other->status().ok());
    EXPECT_EQ(model->pages()->num_used(), 0);
    EXPECT_EQ(model->Stats().finished.at("cancelled"), 1);
    EXPECT_EQ(model->admission().waiting_requests(), 0);
  }
}

TEST(DecodeWork, CancelsWhilePreempted) {
  Simulation simulation;
  ServedModel* const model = simulation.AddModel("m", {.num_pages = 16});
  simulation.Submit(Sampled(20, 200, 1));
  RequestId id = 0;
  const auto sink = simulation.Submit(Sampled(20, 200, 2), &id);
  while (model->Stats().preemptions_total == 0) ASSERT_TRUE(simulation.Step());
  simulation.Cancel(id, absl::CancelledError("left"));
  simulation.Step();
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
  EXPECT_GT(sink->answer().token_ids.size(), 0u);
  simulation.Run();
  EXPECT_EQ(model->pages()->num_used(), 0);
}

TEST(DecodeWork, HonoursADeadlineWhileQueuedAndWhileRunning) {
  Simulation simulation;
  FakeModelOptions options;
  options.limits.max_sequences = 1;
  ServedModel* const model = simulation.AddModel("m", options);
  GenerateRequest running = TokensRequest(Prompt(10), 200);
  running.context.deadline = simulation.clock.Now() + absl::Milliseconds(30);
  GenerateRequest queued = TokensRequest(Prompt(10), 10);
  queued.context.deadline = simulation.clock.Now() + absl::Milliseconds(20);
  const auto running_sink = simulation.Submit(running);
  const auto queued_sink = simulation.Submit(queued);
  while (!running_sink->done() || !queued_sink->done()) {
    const absl::Time before = simulation.clock.Now();
    simulation.Step();
    // Within one step: what had passed before it began has ended.
    EXPECT_EQ(queued_sink->done(), before >= queued.context.deadline);
    EXPECT_EQ(running_sink->done(), before >= running.context.deadline);
  }
  EXPECT_EQ(running_sink->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(queued_sink->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ReasonOf(queued_sink->status()), "DEADLINE_EXCEEDED");
  EXPECT_EQ(queued_sink->num_answers(), 0u);
  EXPECT_EQ(model->pages()->num_used(), 0);
  EXPECT_EQ(model->Stats().finished.at("deadline"), 2);
}

TEST(DecodeWork, RefusesADeadlineThatHasPassed) {
  Simulation simulation;
  simulation.AddModel("m", {});
  GenerateRequest request = TokensRequest(Prompt(10), 10);
  request.context.deadline = simulation.clock.Now();
  EXPECT_EQ(simulation.Refused(request).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(DecodeWork, FailsOnlyTheSequencesOfAFaultyStep) {
  Simulation simulation;
  FakeModelOptions options;
  options.limits.max_sequences = 1;
  options.faults_to_come = std::make_shared<std::atomic<int>>(1);
  ServedModel* const model = simulation.AddModel("m", options);
  const auto failed = simulation.Submit(TokensRequest(Prompt(10), 10));
  const auto waiting = simulation.Submit(TokensRequest(Prompt(10), 10));
  simulation.Run();
  EXPECT_EQ(failed->status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(waiting->status().ok());
  EXPECT_EQ(model->Stats().finished.at("error"), 1);
  EXPECT_EQ(model->pages()->num_used(), 0);
}

TEST(DecodeWork, RefusesWhatTheQueueCannotHold) {
  SimulationOptions options;
  options.admission = {.max_requests = 3, .max_tokens = 1000};
  Simulation simulation(options);
  simulation.AddModel("m", {});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(simulation.Submit(TokensRequest(Prompt(5), 5)));
  const absl::Status full = simulation.Refused(TokensRequest(Prompt(5), 5));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), "QUEUE_FULL");
  EXPECT_TRUE(RetryAfterOf(full).has_value());
  simulation.Step();  // they start, so there is room
  sinks.push_back(simulation.Submit(TokensRequest(Prompt(5), 5)));
  simulation.Run();
  for (const auto& sink : sinks) EXPECT_TRUE(sink->status().ok());
}

TEST(DecodeWork, CountsEveryAnswerOfARequestAgainstTheTokenBound) {
  SimulationOptions options;
  options.admission = {.max_requests = 100, .max_tokens = 100};
  Simulation simulation(options);
  simulation.AddModel("m", {});
  simulation.Submit(TokensRequest(Prompt(5), 5));
  GenerateRequest many = TokensRequest(Prompt(30), 5);
  many.sampling.n = 4;
  EXPECT_EQ(simulation.Refused(many).code(), absl::StatusCode::kResourceExhausted);
}

// --- time ---

TEST(DecodeWork, PlansNoStepOverTheBudgetOnceItKnowsTheModel) {
  SimulationOptions slow;
  slow.step_budget_ms = 20;
  slow.per_row = absl::Milliseconds(1);
  Simulation simulation(slow);
  int64_t largest = 0, steps = 0;
  FakeModelOptions options;
  options.on_step = [&](int64_t rows) { largest = ++steps > 1 ? std::max(largest, rows) : 0; };
  simulation.AddModel("m", options);
  for (int32_t i = 0; i < 10; ++i) simulation.Submit(TokensRequest(Prompt(100, i), 5));
  simulation.Run();
  EXPECT_LE(largest, 20);
  EXPECT_GE(largest, 10);
}

TEST(DecodeWork, TimesWhatHappened) {
  SimulationOptions options;
  options.per_step = absl::Milliseconds(10);
  options.per_row = absl::ZeroDuration();
  Simulation simulation(options);
  ServedModel* const model = simulation.AddModel("m", {});
  GenerateRequest request = TokensRequest(Prompt(10), 5);
  request.context.received = simulation.clock.Now() - absl::Milliseconds(7);
  const auto sink = simulation.Submit(request);
  simulation.Run();
  const Timing timing = sink->answer().last.timing;
  EXPECT_DOUBLE_EQ(timing.queue_ms, 7);
  EXPECT_DOUBLE_EQ(timing.prefill_ms, 10);
  EXPECT_DOUBLE_EQ(timing.decode_ms, 40);
  EXPECT_DOUBLE_EQ(timing.time_to_first_token_ms, 17);

  const ModelStats stats = model->Stats();
  EXPECT_EQ(stats.inter_token_latency.count(), 4);
  EXPECT_NEAR(stats.inter_token_latency.sum(), 0.040, 1e-9);
  EXPECT_NEAR(stats.time_to_first_token.sum(), 0.017, 1e-9);
  EXPECT_NEAR(stats.queue_time[0].sum(), 0.007, 1e-9);
  EXPECT_NEAR(stats.prefill_time.sum(), 0.010, 1e-9);
  EXPECT_NEAR(stats.decode_time.sum(), 0.040, 1e-9);
  EXPECT_NEAR(stats.e2e_latency[0].sum(), 0.057, 1e-9);
  EXPECT_EQ(stats.step_seconds.at("prefill").count(), 1);
  EXPECT_EQ(stats.step_seconds.at("decode").count(), 4);
  EXPECT_EQ(stats.prompt_tokens[0].sum(), 10);
  EXPECT_EQ(stats.generation_tokens.sum(), 5);
  EXPECT_EQ(stats.step_rows.sum(), 14);
  EXPECT_EQ(stats.finished.at("length"), 1);
}

}  // namespace
}  // namespace nibble
