// The engine as its callers see it: threads, models by name, ends of everything.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <latch>
#include <thread>

#include "engine/status.h"
#include "tests/support/fake_backend.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_tokenizer.h"
#include "tests/support/recording_sink.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using Tokens = std::vector<int32_t>;

// An engine whose models are fakes by the name of their source.
class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    fakes_["decoder"] = {.vocab = 400, .tokenizer = std::make_shared<FakeTokenizer>()};
    FakeModelOptions encoder{.embeds = true, .vocab = 400};
    encoder.tokenizer = std::make_shared<FakeTokenizer>();
    encoder.embedding.present = true;
    fakes_["encoder"] = encoder;
    fakes_["bare"] = {};
  }

  void Start(EngineOptions options = {}) {
    options.memory_bytes = 1 << 30;
    auto backend = std::make_unique<FakeBackend>();
    backend_ = backend.get();
    engine_ = std::make_unique<Engine>(
        options, EngineParts{std::move(backend), [] { return absl::Now(); },
                             [this](const LoadRequest& request, const LoadTarget& target) {
                               return Load(request, target);
                             }});
  }

  absl::StatusOr<LoadedModel> Load(const LoadRequest& request, const LoadTarget& target) {
    target.progress({"open", 0, 10});
    if (on_load_) on_load_(target);
    if (target.cancelled()) return absl::CancelledError("stopped");
    const auto it = fakes_.find(request.source);
    if (it == fakes_.end()) return absl::NotFoundError("no such file");
    target.progress({"ready", 10, 10});
    return LoadedModel{std::make_unique<FakeModel>(request.name, it->second), 42};
  }

  void LoadAs(const std::string& name, const std::string& source) {
    const auto loaded = engine_->LoadModel({.name = name, .source = source}, nullptr);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
  }

  template <typename Request>
  std::shared_ptr<RecordingSink> Submit(Request request, RequestId* id = nullptr) {
    auto sink = std::make_shared<RecordingSink>();
    const absl::StatusOr<RequestId> submitted = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    if (submitted.ok() && id != nullptr) *id = *submitted;
    return sink;
  }
  template <typename Request>
  absl::Status Refused(Request request) {
    const auto submitted = engine_->Submit(std::move(request), std::make_shared<RecordingSink>());
    EXPECT_FALSE(submitted.ok());
    return submitted.status();
  }

  static GenerateRequest Ids(const std::string& model, Tokens ids, int32_t max_tokens) {
    GenerateRequest request;
    request.model = model;
    request.prompt = TokenPrompt{std::move(ids)};
    request.stopping.max_tokens = max_tokens;
    request.stopping.ignore_eos = true;
    return request;
  }
  static EmbedRequest Texts(const std::string& model, std::vector<std::string> texts) {
    EmbedRequest request;
    request.model = model;
    for (std::string& text : texts) request.inputs.emplace_back(TextPrompt{std::move(text)});
    return request;
  }

  std::map<std::string, FakeModelOptions> fakes_;
  std::function<void(const LoadTarget&)> on_load_;
  FakeBackend* backend_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

// --- requests ---

TEST_F(EngineTest, GeneratesAndEmbedsFromManyThreads) {
  Start();
  LoadAs("d", "decoder");
  LoadAs("e", "encoder");
  std::vector<std::thread> threads;
  std::vector<Tokens> answers(16);
  for (size_t t = 0; t < 16; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        const auto sink = Submit(Ids("d", {1, 2, static_cast<int32_t>(t % 4)}, 20));
        const auto embedded = Submit(Texts("e", {"one", "two"}));
        EXPECT_TRUE(sink->Wait().ok());
        EXPECT_TRUE(embedded->Wait().ok());
        EXPECT_THAT(embedded->result().embeddings, SizeIs(2));
        const Tokens answer = sink->answer().token_ids;
        if (i > 0) {
          EXPECT_EQ(answer, answers[t]);
        }
        answers[t] = answer;
        engine_->Stats();
        engine_->ListModels();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 4; t < 16; ++t) EXPECT_EQ(answers[t], answers[t % 4]);
  const EngineStats stats = engine_->Stats();
  EXPECT_EQ(stats.models.at("d").e2e_latency[0].count(), 160);
  EXPECT_EQ(stats.models.at("d").generation_tokens_total, 160 * 20);
  EXPECT_EQ(stats.models.at("e").e2e_latency[1].count(), 160);
  EXPECT_EQ(stats.models.at("d").running[0], 0);
}

TEST_F(EngineTest, PublishesItsCountsBeforeTheSinkHearsTheEnd) {
  Start();
  LoadAs("d", "decoder");
  for (int i = 1; i <= 50; ++i) {
    ASSERT_TRUE(Submit(Ids("d", {1}, 2))->Wait().ok());
    const EngineStats stats = engine_->Stats();
    EXPECT_EQ(stats.models.at("d").finished.at("length"), i);
    EXPECT_EQ(stats.models.at("d").kv_usage_ratio, 0);
  }
}

TEST_F(EngineTest, CancelsFromAnyThread) {
  Start();
  LoadAs("d", "decoder");
  for (int i = 0; i < 100; ++i) {
    RequestId id = 0;
    const auto sink = Submit(Ids("d", {1, 2, 3}, 200), &id);
    if (i % 3 == 0) sink->WaitForChunk();
    std::thread canceller([&] { engine_->Cancel(id, absl::CancelledError("left")); });
    const absl::Status status = sink->Wait();
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kCancelled);
    canceller.join();
  }
  EXPECT_EQ(engine_->Stats().models.at("d").kv_usage_ratio, 0);
}

TEST_F(EngineTest, EndsAtADeadlineWhileStreaming) {
  Start();
  LoadAs("d", "decoder");
  fakes_["slow"] = fakes_["decoder"];
  fakes_["slow"].max_context = 1 << 20;
  fakes_["slow"].num_pages = 1 << 16;
  LoadAs("slow", "slow");
  GenerateRequest request = Ids("slow", {1}, 1 << 19);
  request.context.deadline = absl::Now() + absl::Milliseconds(20);
  const auto sink = Submit(request);
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(engine_->Stats().models.at("slow").kv_usage_ratio, 0);
}

TEST_F(EngineTest, RefusesEveryBadPromptByItsCode) {
  fakes_["decoder"].max_context = 8;
  Start();
  LoadAs("d", "decoder");
  const auto text = [](std::string prompt, bool special = false) {
    GenerateRequest request;
    request.prompt = TextPrompt{std::move(prompt)};
    request.add_special_tokens = special;
    return request;
  };
  struct Case {
    GenerateRequest request;
    const char* reason;
    const char* field;
  };
  GenerateRequest none;
  GenerateRequest empty_chat, temperature = text("a"), tokens = text("a");
  empty_chat.prompt = ChatPrompt{};
  temperature.sampling.temperature = -1;
  tokens.stopping.max_tokens = 0;
  const std::vector<Case> cases = {
      {none, "NO_PROMPT", "prompt"},
      {text(""), "EMPTY_PROMPT", "text"},
      {text("\xff"), "INVALID_UTF8", "text"},
      {text("12345678"), "PROMPT_TOO_LONG", "prompt"},
      {text(std::string((4 << 20) + 1, 'x')), "OVER_CAP", "text"},
      {Ids("", {}, 1), "NO_PROMPT", "token_ids.ids"},
      {Ids("", {1, 258}, 1), "TOKEN_OUT_OF_RANGE", "token_ids.ids"},
      {Ids("", {-1}, 1), "TOKEN_OUT_OF_RANGE", "token_ids.ids"},
      {empty_chat, "NO_PROMPT", "chat.messages"},
      {temperature, "VALUE_OUT_OF_RANGE", "sampling.temperature"},
      {tokens, "VALUE_OUT_OF_RANGE", "stopping.max_tokens"},
  };
  for (const Case& each : cases) {
    const absl::Status status = Refused(each.request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(ReasonOf(status), each.reason) << status;
    EXPECT_EQ(FieldOf(status), each.field) << status;
  }
  EXPECT_TRUE(Submit(text("1234567"))->Wait().ok());
}

TEST_F(EngineTest, RefusesWhatTheModelCannotDo) {
  Start();
  LoadAs("bare", "bare");
  LoadAs("encoder", "encoder");
  LoadAs("decoder", "decoder");
  GenerateRequest text, chat;
  text.prompt = TextPrompt{"hello"};
  chat.prompt = ChatPrompt{{{"user", "hello"}}};
  const auto refused = [&](GenerateRequest request, const std::string& model) {
    request.model = model;
    const absl::Status status = Refused(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    return ReasonOf(status);
  };
  EXPECT_EQ(refused(text, "bare"), "NO_TOKENIZER");
  EXPECT_EQ(refused(chat, "bare"), "NO_TOKENIZER");
  EXPECT_EQ(refused(chat, "decoder"), "NO_CHAT_TEMPLATE");
  EXPECT_EQ(refused(text, "encoder"), "MODEL_CANNOT_GENERATE");
}

TEST_F(EngineTest, FindsTheOnlyModelThatCan) {
  Start();
  EXPECT_EQ(Refused(Ids("", {1}, 1)).code(), absl::StatusCode::kNotFound);
  LoadAs("e", "encoder");
  EXPECT_EQ(Refused(Ids("", {1}, 1)).code(), absl::StatusCode::kNotFound);
  LoadAs("d", "decoder");
  const auto sink = Submit(Ids("", {1}, 1));
  EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->answer().last.model, "d");
  EXPECT_TRUE(Submit(Texts("", {"x"}))->Wait().ok());
  LoadAs("d2", "decoder");
  const absl::Status ambiguous = Refused(Ids("", {1}, 1));
  EXPECT_EQ(ambiguous.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(ambiguous), "MODEL_AMBIGUOUS");
  const absl::Status unknown = Refused(Ids("x", {1}, 1));
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(unknown), "MODEL_NOT_FOUND");
  EXPECT_EQ(FieldOf(unknown), "model");
}

// --- models ---

TEST_F(EngineTest, DescribesWhatItLoaded) {
  Start();
  std::vector<std::string> stages;
  const auto loaded =
      engine_->LoadModel({.name = "d", .source = "decoder"},
                         [&](const LoadProgress& progress) { stages.push_back(progress.stage); });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(stages, ElementsAre("open", "ready"));
  EXPECT_EQ(loaded->name, "d");
  EXPECT_EQ(loaded->source, "decoder");
  EXPECT_EQ(loaded->state, ModelState::kReady);
  EXPECT_TRUE(loaded->can_generate);
  EXPECT_FALSE(loaded->can_embed);
  EXPECT_TRUE(loaded->has_tokenizer);
  EXPECT_FALSE(loaded->has_chat_template);
  EXPECT_EQ(loaded->max_context, 256);
  EXPECT_EQ(loaded->kv_tokens, 1024 * 16);
  EXPECT_EQ(loaded->parameters, 42);
  EXPECT_EQ(loaded->compute, "fp32");
  EXPECT_EQ(loaded->device, "fake:0");
  LoadAs("a", "bare");
  const std::vector<ModelDescription> all = engine_->ListModels();
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].name, "a");
  EXPECT_EQ(engine_->GetModel("nope").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(EngineTest, RefusesBadNamesAndNamesInUse) {
  Start();
  for (const std::string& name : {std::string(), std::string("a b"), std::string("a/b"),
                                  std::string(65, 'x'), std::string("\xc3\xa9")}) {
    const auto loaded = engine_->LoadModel({.name = name, .source = "decoder"}, nullptr);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(loaded.status()), "MODEL_NAME_INVALID");
  }
  LoadAs(std::string(64, 'x'), "decoder");
  LoadAs("A.b_c-9", "decoder");
  const auto twice = engine_->LoadModel({.name = "A.b_c-9", .source = "bare"}, nullptr);
  EXPECT_EQ(twice.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(twice.status()), "MODEL_EXISTS");
}

TEST_F(EngineTest, FreesTheNameOfAFailedLoad) {
  Start();
  EXPECT_EQ(engine_->LoadModel({.name = "d", .source = "nowhere"}, nullptr).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(engine_->ListModels(), SizeIs(0));
  LoadAs("d", "decoder");
}

TEST_F(EngineTest, AnswersOthersWhileAModelLoads) {
  Start();
  LoadAs("d", "decoder");
  std::latch loading(1), go_on(1);
  on_load_ = [&](const LoadTarget&) {
    loading.count_down();
    go_on.wait();
  };
  std::thread loader([&] { LoadAs("slow", "bare"); });
  loading.wait();
  EXPECT_TRUE(Submit(Ids("d", {1}, 5))->Wait().ok());
  const absl::Status early = Refused(Ids("slow", {1}, 5));
  EXPECT_EQ(early.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(early), "MODEL_LOADING");
  EXPECT_EQ(engine_->LoadModel({.name = "slow", .source = "bare"}, nullptr).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(engine_->UnloadModel("slow", absl::InfiniteFuture()).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine_->GetModel("slow")->state, ModelState::kLoading);
  go_on.count_down();
  loader.join();
  EXPECT_TRUE(Submit(Ids("slow", {1}, 5))->Wait().ok());
}

TEST_F(EngineTest, StopsALoadAtItsDeadline) {
  Start();
  const auto late = engine_->LoadModel(
      {.name = "d", .source = "decoder", .deadline = absl::Now() - absl::Seconds(1)}, nullptr);
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(engine_->ListModels(), SizeIs(0));
}

TEST_F(EngineTest, WaitsForWhatRunsBeforeAnUnload) {
  Start();
  LoadAs("d", "decoder");
  const auto sink = Submit(Ids("d", {1}, 200));
  ASSERT_TRUE(engine_->UnloadModel("d", absl::InfiniteFuture()).ok());
  EXPECT_TRUE(sink->done());
  EXPECT_TRUE(sink->status().ok());
  EXPECT_THAT(engine_->ListModels(), SizeIs(0));
  EXPECT_EQ(Refused(Ids("d", {1}, 1)).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(engine_->UnloadModel("d", absl::InfiniteFuture()).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(engine_->Stats().models.count("d"), 0u);
  LoadAs("d", "decoder");
}

TEST_F(EngineTest, CancelsWhatStreamsAtTheUnloadsDeadline) {
  fakes_["endless"] = {.max_context = 1 << 20, .num_pages = 1 << 16};
  Start();
  LoadAs("d", "endless");
  LoadAs("other", "decoder");
  const auto sink = Submit(Ids("d", {1}, 1 << 19));
  sink->WaitForChunk();
  ASSERT_TRUE(engine_->UnloadModel("d", absl::Now() + absl::Milliseconds(5)).ok());
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(sink->status()), "MODEL_UNLOADING");
  EXPECT_TRUE(Submit(Ids("other", {1}, 5))->Wait().ok());
}

TEST_F(EngineTest, RefusesNewWorkWhileUnloading) {
  fakes_["held"] = {};
  std::latch running(1), go_on(1);
  fakes_["held"].on_step = [&](int64_t) {
    if (!running.try_wait()) running.count_down();
    go_on.wait();
  };
  Start();
  LoadAs("d", "held");
  const auto sink = Submit(Ids("d", {1}, 5));
  running.wait();
  std::thread unloader(
      [&] { EXPECT_TRUE(engine_->UnloadModel("d", absl::InfiniteFuture()).ok()); });
  while (engine_->GetModel("d")->state != ModelState::kUnloading) std::this_thread::yield();
  const absl::Status refused = Refused(Ids("d", {1}, 5));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(refused), "MODEL_UNLOADING");
  go_on.count_down();
  unloader.join();
  EXPECT_TRUE(sink->status().ok());
}

// --- tokenizers ---

TEST_F(EngineTest, TokenizesAndDetokenizes) {
  Start();
  LoadAs("d", "decoder");
  LoadAs("bare", "bare");
  const auto tokens = engine_->Tokenize("d", {"ab", ""}, true, false);
  ASSERT_TRUE(tokens.ok());
  EXPECT_THAT((*tokens)[0].ids, ElementsAre(FakeTokenizer::kBegin, 'a', 'b', FakeTokenizer::kEnd));
  EXPECT_THAT(engine_->Tokenize("d", {"ab"}, false, false)->at(0).ids, ElementsAre('a', 'b'));
  EXPECT_THAT(*engine_->Detokenize("d", {{'a', FakeTokenizer::kEnd}}, true), ElementsAre("a"));

  const absl::Status bad = engine_->Tokenize("d", {"fine", "\xff"}, true, false).status();
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(bad), "texts[1]");
  EXPECT_THAT(std::string(bad.message()), HasSubstr("texts[1]"));
  const absl::Status range = engine_->Detokenize("d", {{'a'}, {999}}, true).status();
  EXPECT_EQ(range.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(range), "tokens[1]");
  EXPECT_EQ(engine_->Tokenize("bare", {"a"}, true, false).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(engine_->Tokenize("none", {"a"}, true, false).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(engine_->Detokenize("d", std::vector<Tokens>(2049), true).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// --- the process ---

TEST_F(EngineTest, DrainsWhatRunsAndRefusesTheRest) {
  Start();
  LoadAs("d", "decoder");
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 20; ++i) sinks.push_back(Submit(Ids("d", {1}, 100)));
  engine_->Drain(absl::InfiniteFuture());
  for (const auto& sink : sinks) {
    EXPECT_TRUE(sink->done());
    EXPECT_TRUE(sink->status().ok());
  }
  for (const absl::Status& status :
       {Refused(Ids("d", {1}, 1)), engine_->Tokenize("d", {"a"}, true, false).status(),
        engine_->LoadModel({.name = "x", .source = "decoder"}, nullptr).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ReasonOf(status), "DRAINING");
  }
  engine_->Drain(absl::InfiniteFuture());  // a second time: nothing happens
}

TEST_F(EngineTest, CancelsTheRestAtTheDrainsDeadline) {
  fakes_["endless"] = {.max_context = 1 << 20, .num_pages = 1 << 16};
  Start();
  LoadAs("d", "endless");
  const auto sink = Submit(Ids("d", {1}, 1 << 19));
  sink->WaitForChunk();
  engine_->Drain(absl::Now() + absl::Milliseconds(5));
  EXPECT_TRUE(sink->done());
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(sink->status()), "DRAINING");
}

TEST_F(EngineTest, EndsEveryStreamWhenItDies) {
  fakes_["endless"] = {.max_context = 1 << 20, .num_pages = 1 << 16};
  Start();
  LoadAs("d", "endless");
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 5; ++i) sinks.push_back(Submit(Ids("d", {1}, 1 << 19)));
  engine_.reset();
  for (const auto& sink : sinks) EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, ParksWhenIdleAndReportsAStall) {
  std::latch running(1), go_on(1);
  fakes_["held"].on_step = [&](int64_t) {
    if (!running.try_wait()) running.count_down();
    go_on.wait();
  };
  Start();
  LoadAs("d", "held");
  EXPECT_EQ(engine_->StalledFor(), absl::ZeroDuration());
  const auto sink = Submit(Ids("d", {1}, 2));
  running.wait();
  const absl::Duration stalled = engine_->StalledFor();
  while (engine_->StalledFor() <= stalled) std::this_thread::yield();
  go_on.count_down();
  EXPECT_TRUE(sink->Wait().ok());
  while (engine_->StalledFor() > absl::ZeroDuration()) std::this_thread::yield();
  const int parks = backend_->parks;
  EXPECT_TRUE(Submit(Ids("d", {1}, 2))->Wait().ok());
  while (backend_->parks == parks) std::this_thread::yield();
}

TEST(Engine, RefusesOptionsOutOfRange) {
  EngineOptions options;
  options.limits.max_rows = 0;
  const auto engine = Engine::Create(options);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(engine.status()), "OPTION_OUT_OF_RANGE");
  EXPECT_EQ(FieldOf(engine.status()), "limits.max_rows");
  options = {};
  options.step_budget_ms = std::nan("");
  EXPECT_EQ(Engine::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
