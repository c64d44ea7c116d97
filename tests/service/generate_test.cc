// Generate, from a client to a real model and back.
#include <gmock/gmock.h>

#include <thread>

#include "tests/support/running_server.h"

namespace nibble {
namespace {

using testing::Answers;
using ::testing::HasSubstr;
using testing::RunningServer;

class GenerateTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new RunningServer(); }
  static void TearDownTestSuite() { delete std::exchange(server_, nullptr); }
  RunningServer& server() { return *server_; }

  static v1::GenerateRequest Text(const std::string& text, int max_tokens = 12) {
    v1::GenerateRequest request;
    request.set_model("chat");
    request.set_text(text);
    request.mutable_stopping()->set_max_tokens(max_tokens);
    request.mutable_output()->set_token_ids(true);
    return request;
  }

 private:
  static RunningServer* server_;
};
RunningServer* GenerateTest::server_ = nullptr;

TEST_F(GenerateTest, StreamsAnAnswerAndTellsHowItEnded) {
  const Answers answers = server().Generate(Text("Once upon a time"));
  ASSERT_TRUE(answers.status.ok()) << answers.status.error_message();
  ASSERT_EQ(answers.by_index.size(), 1u);
  const Answers::Answer& answer = answers.by_index.at(0);
  EXPECT_EQ(answer.num_ends, 1);
  EXPECT_EQ(answer.last.model(), "chat");
  EXPECT_TRUE(answer.last.has_seed());
  EXPECT_GT(answer.last.usage().prompt_tokens(), 0);
  EXPECT_EQ(answer.last.usage().completion_tokens(), 12);
  EXPECT_EQ(answer.last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.ids.size(), 12u);
  EXPECT_GT(answer.last.timing().time_to_first_token_ms(), 0);
  EXPECT_GT(answer.last.timing().prefill_ms(), 0);
}

TEST_F(GenerateTest, TextIsWhatDetokenizeMakesOfTheIds) {
  const Answers answers = server().Generate(Text("The little dog", 40));
  ASSERT_TRUE(answers.status.ok());
  v1::DetokenizeRequest request;
  request.set_model("chat");
  request.add_tokens()->mutable_ids()->Add(answers.by_index.at(0).ids.begin(),
                                           answers.by_index.at(0).ids.end());
  grpc::ClientContext context;
  v1::DetokenizeResponse response;
  ASSERT_TRUE(server().inference().Detokenize(&context, request, &response).ok());
  EXPECT_EQ(response.texts(0), answers.by_index.at(0).text);
}

TEST_F(GenerateTest, GivesIdsOnlyToThoseWhoAsk) {
  v1::GenerateRequest request = Text("Once upon a time");
  request.clear_output();
  const Answers answers = server().Generate(request);
  ASSERT_TRUE(answers.status.ok());
  EXPECT_TRUE(answers.by_index.at(0).ids.empty());
}

TEST_F(GenerateTest, TakesTheThreeKindsOfPrompt) {
  v1::GenerateRequest ids = Text("");
  ids.mutable_token_ids()->add_ids(423);
  EXPECT_TRUE(server().Generate(ids).status.ok());
  v1::GenerateRequest chat = Text("");
  v1::ChatMessage* message = chat.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("Where is the dog? <|im_end|>");
  const Answers answers = server().Generate(chat);
  EXPECT_TRUE(answers.status.ok()) << answers.status.error_message();
  EXPECT_GT(answers.by_index.at(0).last.usage().prompt_tokens(), 10);
}

TEST_F(GenerateTest, AModelWithoutATokenizerServesIds) {
  v1::GenerateRequest request = Text("");
  request.set_model("stories");
  request.mutable_token_ids()->add_ids(1);
  const Answers answers = server().Generate(request);
  ASSERT_TRUE(answers.status.ok()) << answers.status.error_message();
  EXPECT_EQ(answers.by_index.at(0).ids.size(), 12u);
  EXPECT_EQ(answers.by_index.at(0).text, "");
  request.clear_output();
  EXPECT_EQ(server().Generate(request).num_messages, 1) << "no piece that tells nothing";
}

TEST_F(GenerateTest, ManyAnswersDifferAndASeedBringsThemBack) {
  v1::GenerateRequest request = Text("Once upon a time", 16);
  request.mutable_sampling()->set_n(4);
  request.mutable_sampling()->set_temperature(1);
  request.mutable_sampling()->set_seed(7);
  const Answers first = server().Generate(request);
  const Answers again = server().Generate(request);
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  ASSERT_EQ(first.by_index.size(), 4u);
  int64_t prompt_tokens = 0;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(first.by_index.at(i).ids, again.by_index.at(i).ids);
    EXPECT_EQ(first.by_index.at(i).last.seed(), 7u);
    prompt_tokens += first.by_index.at(i).last.usage().prompt_tokens();
  }
  EXPECT_NE(first.by_index.at(0).ids, first.by_index.at(1).ids);
  EXPECT_EQ(prompt_tokens, first.by_index.at(0).last.usage().prompt_tokens()) << "of index 0 only";
}

TEST_F(GenerateTest, TheDrawnSeedRepeatsTheAnswer) {
  v1::GenerateRequest request = Text("Once upon a time", 16);
  request.mutable_sampling()->set_temperature(1);
  const Answers first = server().Generate(request);
  request.mutable_sampling()->set_seed(first.by_index.at(0).last.seed());
  EXPECT_EQ(server().Generate(request).by_index.at(0).ids, first.by_index.at(0).ids);
}

TEST_F(GenerateTest, StopsAtATokenAndSaysWhich) {
  const Answers whole = server().Generate(Text("Once upon a time"));
  ASSERT_TRUE(whole.status.ok());
  const int32_t third = whole.by_index.at(0).ids[2];
  v1::GenerateRequest request = Text("Once upon a time");
  request.mutable_stopping()->add_stop_token_ids(third);
  const Answers stopped = server().Generate(request);
  ASSERT_TRUE(stopped.status.ok());
  EXPECT_EQ(stopped.by_index.at(0).last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(stopped.by_index.at(0).last.stop().token_id(), third);
  EXPECT_LE(stopped.by_index.at(0).last.usage().completion_tokens(), 3);
}

TEST_F(GenerateTest, GivesLogprobsOfPromptAndAnswer) {
  v1::GenerateRequest request = Text("Once upon a time", 3);
  request.mutable_output()->set_logprobs(2);
  request.mutable_output()->set_prompt_logprobs(1);
  grpc::ClientContext context;
  const auto reader = server().inference().Generate(&context, request);
  v1::GenerateResponse message;
  int logprobs = 0, prompt_logprobs = 0, messages = 0;
  int64_t prompt_tokens = 0;
  while (reader->Read(&message)) {
    for (const v1::TokenLogprobs& entry : message.logprobs()) {
      EXPECT_EQ(entry.top_size(), 2);
      EXPECT_LE(entry.logprob(), 0);
      ++logprobs;
    }
    if (messages++ > 0) {
      EXPECT_EQ(message.prompt_logprobs_size(), 0);
    }
    prompt_logprobs += message.prompt_logprobs_size();
    prompt_tokens += message.usage().prompt_tokens();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(logprobs, 3);
  EXPECT_EQ(prompt_logprobs, prompt_tokens - 1) << "of every prompt token but the first";
}

TEST_F(GenerateTest, EchoesTheRequestIdAndMakesOneIfAbsent) {
  const auto id_of = [&](const std::string& given, const std::string& traceparent) {
    grpc::ClientContext context;
    if (!given.empty()) context.AddMetadata("x-request-id", given);
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    EXPECT_TRUE(server().Generate(Text("Once", 1), &context).status.ok());
    const auto& metadata = context.GetServerInitialMetadata();
    EXPECT_EQ(metadata.count("x-request-id"), 1u);
    const auto trace = metadata.find("traceparent");
    const std::string id(metadata.find("x-request-id")->second.data(),
                         metadata.find("x-request-id")->second.size());
    return std::make_pair(
        id, trace == metadata.end() ? "" : std::string(trace->second.data(), trace->second.size()));
  };
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_EQ(id_of("my-id.1", trace), std::make_pair(std::string("my-id.1"), trace));
  const auto [made, none] = id_of("", "");
  EXPECT_EQ(made.size(), 32u);
  EXPECT_EQ(none, "");
  EXPECT_NE(id_of("", "").first, made);
  EXPECT_EQ(id_of(std::string(129, 'a'), "").first.size(), 32u) << "too long: one of our own";
  EXPECT_EQ(id_of("has space", "00-x").second, "") << "no traceparent: not echoed";
}

TEST_F(GenerateTest, TellsTheObserverWhatItDid) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "observed-1");
  context.AddMetadata("x-tenant", "acme");
  ASSERT_TRUE(server().Generate(Text("Once upon a time"), &context).status.ok());
  const RequestRecord record = server().journal().Await("observed-1");
  EXPECT_STREQ(record.method, "/nibble.v1.Inference/Generate");
  EXPECT_STREQ(record.op, "generate");
  EXPECT_EQ(record.model, "chat");
  EXPECT_EQ(record.tenant, "acme");
  EXPECT_EQ(record.code, absl::StatusCode::kOk);
  EXPECT_EQ(record.completion_tokens, 12);
  EXPECT_GT(record.prompt_tokens, 0);
  EXPECT_GT(record.time_to_first_token_ms, 0);
  EXPECT_GE(absl::ToDoubleMilliseconds(record.duration), record.time_to_first_token_ms);
}

TEST_F(GenerateTest, AnswersAreTheSameAloneAndInACrowd) {
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 64; ++i) {
    requests.push_back(Text("Once upon a time", 8 + i % 17));
    requests.back().mutable_sampling()->set_temperature(1);
    requests.back().mutable_sampling()->set_seed(static_cast<uint64_t>(i));
  }
  std::vector<std::vector<int32_t>> alone, crowd(64);
  for (const v1::GenerateRequest& request : requests) {
    alone.push_back(server().Generate(request).by_index.at(0).ids);
  }
  std::atomic<bool> done = false;
  std::thread embedder([&] {
    v1::EmbedRequest request;
    request.set_model("bert");
    request.add_inputs()->set_text("a little dog");
    std::string first;
    do {
      v1::EmbedResponse response;
      ASSERT_TRUE(server().Embed(request, &response).ok());
      const std::string now = response.embeddings(0).SerializeAsString();
      if (first.empty()) first = now;
      EXPECT_EQ(now, first);
      EXPECT_EQ(server().Health("nibble.v1.Inference"),
                grpc::health::v1::HealthCheckResponse::SERVING);
    } while (!done);
  });
  std::vector<std::thread> clients;
  for (size_t i = 0; i < 64; ++i) {
    clients.emplace_back([&, i] {
      const Answers answers = server().Generate(requests[i]);
      EXPECT_TRUE(answers.status.ok()) << answers.status.error_message();
      if (answers.status.ok()) crowd[i] = answers.by_index.at(0).ids;
    });
  }
  for (std::thread& client : clients) client.join();
  done = true;
  embedder.join();
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(crowd[i], alone[i]) << i;
}

}  // namespace
}  // namespace nibble
