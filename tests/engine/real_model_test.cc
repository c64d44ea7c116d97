// The whole living floor with real models on the CPU: batch, chunks, preemption, threads and ISA
// rows do not change a bit of an answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "engine/engine.h"
#include "tests/support/recording_sink.h"

namespace nibble {
namespace {

using Tokens = std::vector<int32_t>;

std::string PathOf(const std::string& model) {
  return std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/models/" + model;
}

std::unique_ptr<Engine> MakeEngine(const std::string& model, EngineOptions options = {},
                                   const ModelOptions& model_options = {}) {
  options.memory_bytes = 1 << 30;
  auto engine = Engine::Create(options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  const auto loaded = (*engine)->LoadModel(
      {.name = "m", .source = PathOf(model), .options = model_options}, nullptr);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return *std::move(engine);
}

template <typename Request>
std::shared_ptr<RecordingSink> Send(Engine* engine, const Request& request) {
  auto sink = std::make_shared<RecordingSink>();
  const auto id = engine->Submit(request, sink);
  EXPECT_TRUE(id.ok()) << id.status();
  return sink;
}

// Every third one greedy, the others drawn, some with penalties.
GenerateRequest RequestOf(int32_t which) {
  std::mt19937 random(static_cast<uint32_t>(which));
  Tokens prompt(1 + static_cast<size_t>(which * 7 % 90));
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % 500);
  GenerateRequest request;
  request.prompt = TokenPrompt{prompt};
  request.stopping.max_tokens = 12 + which % 30;
  request.stopping.ignore_eos = true;
  request.sampling.temperature = which % 3 == 0 ? 0.0f : 0.9f;
  request.sampling.seed = static_cast<uint64_t>(which);
  if (which % 4 == 1) request.sampling.repetition_penalty = 1.2f;
  if (which % 5 == 1) request.output.logprobs = 1;
  if (which % 8 == 1) request.output.prompt_logprobs = 0;
  return request;
}

using Answers = std::vector<RecordingSink::Answer>;

Answers OneByOne(Engine* engine, int32_t count) {
  Answers answers;
  for (int32_t i = 0; i < count; ++i) {
    const auto sink = Send(engine, RequestOf(i));
    EXPECT_TRUE(sink->Wait().ok());
    answers.push_back(sink->answer());
  }
  return answers;
}

Answers AllAtOnce(Engine* engine, int32_t count) {
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int32_t i = 0; i < count; ++i) sinks.push_back(Send(engine, RequestOf(i)));
  Answers answers;
  for (const auto& sink : sinks) {
    EXPECT_TRUE(sink->Wait().ok());
    answers.push_back(sink->answer());
  }
  return answers;
}

void ExpectEqualLogprobs(const std::vector<TokenLogprobs>& got,
                         const std::vector<TokenLogprobs>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].token_id, want[i].token_id);
    EXPECT_EQ(got[i].logprob, want[i].logprob);  // bit for bit
  }
}

void ExpectEqual(const Answers& got, const Answers& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].token_ids, want[i].token_ids) << "request " << i;
    ExpectEqualLogprobs(got[i].logprobs, want[i].logprobs);
    ExpectEqualLogprobs(got[i].prompt_logprobs, want[i].prompt_logprobs);
  }
}

// What 64 requests answer one after the other, on as many threads as there are.
const Answers& Expected() {
  static const Answers answers = OneByOne(MakeEngine("stories260k").get(), 64);
  return answers;
}

TEST(RealModel, AnswersTheSameAmong63Others) {
  ExpectEqual(AllAtOnce(MakeEngine("stories260k").get(), 64), Expected());
}

class RealMode : public ::testing::TestWithParam<Compute> {};
TEST_P(RealMode, AnswersTheSameAloneAndAmong63Others) {
  EngineOptions options;
  options.backend.compute = GetParam();
  ExpectEqual(AllAtOnce(MakeEngine("stories260k", options).get(), 64),
              OneByOne(MakeEngine("stories260k", options).get(), 64));
}
INSTANTIATE_TEST_SUITE_P(Of, RealMode,
                         ::testing::Values(Compute::kFp32, Compute::kBf16, Compute::kInt8));

class RealChunks : public ::testing::TestWithParam<int64_t> {};
TEST_P(RealChunks, DoNotChangeTheAnswer) {
  EngineOptions options;
  options.limits.max_rows = GetParam();
  ExpectEqual(AllAtOnce(MakeEngine("stories260k", options).get(), 64), Expected());
}
INSTANTIATE_TEST_SUITE_P(Rows, RealChunks, ::testing::Values(1, 7, 16, 64));

TEST(RealModel, AnswersTheSameWhenPreempted) {
  // 12 pages of 16 positions for 64 requests of up to 131.
  ModelOptions few;
  few.kv_bytes = 12 * 10240;
  const auto engine = MakeEngine("stories260k", {}, few);
  ASSERT_EQ(engine->GetModel("m")->kv_tokens, 12 * kPageSlots);
  ExpectEqual(AllAtOnce(engine.get(), 64), Expected());
  EXPECT_GT(engine->Stats().models.at("m").preemptions_total, 5);
}

TEST(RealModel, AnswersTheSameOnAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3}) {
    EngineOptions options;
    options.backend.num_threads = threads;
    ExpectEqual(AllAtOnce(MakeEngine("stories260k", options).get(), 64), Expected());
  }
}

class RealIsa : public ::testing::TestWithParam<const char*> {};
TEST_P(RealIsa, DoesNotChangeTheAnswer) {
  EngineOptions options;
  options.backend.cpu_isa = GetParam();
  if (!MakeBackend(options.backend).ok()) GTEST_SKIP() << "this CPU has no " << GetParam();
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    options.backend.compute = compute;
    EngineOptions best;
    best.backend.compute = compute;
    ExpectEqual(AllAtOnce(MakeEngine("stories260k", options).get(), 64),
                AllAtOnce(MakeEngine("stories260k", best).get(), 64));
  }
}
INSTANTIATE_TEST_SUITE_P(Rows, RealIsa,
                         ::testing::Values("scalar", "avx2", "avx2_vnni", "avx512", "avx512_vnni",
                                           "avx512_bf16", "amx"));

TEST(RealModel, EmbedsTheSameAloneAndInACrowd) {
  const auto engine = MakeEngine("tiny_bert");
  std::vector<std::string> texts = {"", "a", "The quick brown fox.", "Ünïcödé 日本語"};
  for (int i = 0; i < 40; ++i) texts.push_back("text number " + std::to_string(i));
  const auto request = [](const std::vector<std::string>& of) {
    EmbedRequest embed;
    for (const std::string& text : of) embed.inputs.emplace_back(TextPrompt{text});
    embed.truncation = Truncation::kRight;
    return embed;
  };
  std::vector<std::shared_ptr<RecordingSink>> crowd;
  for (int i = 0; i < 5; ++i) crowd.push_back(Send(engine.get(), request(texts)));
  for (const auto& sink : crowd) ASSERT_TRUE(sink->Wait().ok());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto alone = Send(engine.get(), request({texts[i]}));
    ASSERT_TRUE(alone->Wait().ok());
    for (const auto& sink : crowd) {
      EXPECT_EQ(sink->result().embeddings.at(i).values, alone->result().embeddings.at(0).values);
    }
  }
}

TEST(RealModel, ChatsThroughItsTemplateUntilItsEnd) {
  const auto engine = MakeEngine("tiny_chat");
  GenerateRequest request;
  request.prompt = ChatPrompt{{{"user", "Hello"}}};
  request.stopping.max_tokens = 20;
  const auto sink = Send(engine.get(), request);
  ASSERT_TRUE(sink->Wait().ok()) << sink->status();
  const auto decoded = engine->Detokenize("m", {sink->answer().token_ids}, true);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(sink->answer().text, decoded->at(0));
  EXPECT_GT(sink->answer().last.usage.prompt_tokens, 1);
}

TEST(RealModel, GivesItsMemoryBackWhenUnloaded) {
  const auto engine = MakeEngine("stories260k");
  EXPECT_FALSE(engine->Stats().memory.empty());
  ASSERT_TRUE(engine->UnloadModel("m", absl::InfiniteFuture()).ok());
  EXPECT_TRUE(engine->Stats().memory.empty());
}

TEST(RealModel, LoadsWhatItEstimated) {
  for (const char* model : {"stories260k", "tiny_chat", "tiny_bert"}) {
    EngineOptions options;
    options.memory_bytes = 1 << 30;
    const auto engine = Engine::Create(options);
    ASSERT_TRUE(engine.ok());
    const LoadRequest request{.name = "m", .source = PathOf(model)};
    const auto estimate = (*engine)->EstimateModel(request);
    ASSERT_TRUE(estimate.ok()) << estimate.status();
    const auto loaded = (*engine)->LoadModel(request, nullptr);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(estimate->memory.Total(), loaded->memory.Total());
    EXPECT_EQ(estimate->max_context, loaded->max_context);
    EXPECT_EQ(estimate->kv_tokens, loaded->kv_tokens);
    EXPECT_EQ(estimate->parameters, loaded->parameters);
    EXPECT_EQ(estimate->can_generate, loaded->can_generate);
    EXPECT_EQ(estimate->can_embed, loaded->can_embed);
    EXPECT_EQ(estimate->has_tokenizer, loaded->has_tokenizer);
    EXPECT_EQ(estimate->has_chat_template, loaded->has_chat_template);
    EXPECT_EQ(estimate->options.kv_bytes, loaded->options.kv_bytes);
    EXPECT_EQ(estimate->options.kv_dtype, loaded->options.kv_dtype);
    int64_t reserved = 0;
    for (const Ledger::Entry& entry : (*engine)->Stats().memory) reserved += entry.bytes;
    EXPECT_EQ(reserved, loaded->memory.Total());
  }
}

TEST(RealModel, RefusesWhatDoesNotFitWithTheBreakdown) {
  EngineOptions options;
  options.memory_bytes = 100'000;
  const auto engine = Engine::Create(options);
  ASSERT_TRUE(engine.ok());
  const auto loaded = (*engine)->LoadModel({.name = "m", .source = PathOf("stories260k")}, nullptr);
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(loaded.status().message()), ::testing::HasSubstr("weights"));
  EXPECT_TRUE((*engine)->ListModels().empty());
  EXPECT_TRUE((*engine)->Stats().memory.empty());
}

}  // namespace
}  // namespace nibble
