// Calls that end before their time: cancelled, late, unread, their client gone. Every page comes
// back and the server goes on serving.
#include <gmock/gmock.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/support/running_server.h"

namespace nibble {
namespace {

using testing::Answers;
using testing::DetailsOf;
using testing::kPatience;
using testing::LongRequest;
using testing::RunningServer;

class InterruptionTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new RunningServer(); }
  static void TearDownTestSuite() { delete std::exchange(server_, nullptr); }
  void TearDown() override {
    EXPECT_TRUE(server().AwaitQuiet("chat"));
    EXPECT_TRUE(server().Serves());
  }
  RunningServer& server() { return *server_; }

 private:
  static RunningServer* server_;
};
RunningServer* InterruptionTest::server_ = nullptr;

TEST_F(InterruptionTest, ACallCancelledBeforeItsFirstPieceEndsCancelled) {
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    const auto reader = server().inference().Generate(&context, LongRequest());
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
}

TEST_F(InterruptionTest, ACallCancelledMidStreamEndsCancelled) {
  for (int pieces = 1; pieces < 6; ++pieces) {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "cancel-" + std::to_string(pieces));
    const auto reader = server().inference().Generate(&context, LongRequest("chat", 16));
    v1::GenerateResponse message;
    for (int i = 0; i < pieces; ++i) ASSERT_TRUE(reader->Read(&message));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
    const RequestRecord record = server().journal().Await("cancel-" + std::to_string(pieces));
    EXPECT_EQ(record.code, absl::StatusCode::kCancelled);
    EXPECT_EQ(record.reason, "CLIENT_CANCELLED");
  }
}

TEST_F(InterruptionTest, CancelsWithManyOthersLeaveThemAlone) {
  const v1::GenerateRequest steady = [] {
    v1::GenerateRequest request = LongRequest("chat", 1);
    request.mutable_sampling()->set_seed(5);
    request.mutable_output()->set_token_ids(true);
    return request;
  }();
  const std::vector<int32_t> alone = server().Generate(steady).by_index.at(0).ids;
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      grpc::ClientContext context;
      const auto reader = server().inference().Generate(&context, LongRequest());
      v1::GenerateResponse message;
      reader->Read(&message);
      context.TryCancel();
      reader->Finish();
    });
  }
  const Answers answers = server().Generate(steady);
  for (std::thread& client : clients) client.join();
  ASSERT_TRUE(answers.status.ok()) << answers.status.error_message();
  EXPECT_EQ(answers.by_index.at(0).ids, alone);
}

TEST_F(InterruptionTest, ADeadlineAlreadyPastIsExceeded) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() - absl::Seconds(1)));
  EXPECT_EQ(server().Generate(LongRequest(), &context).status.error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(InterruptionTest, ADeadlineMidStreamIsExceeded) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "deadline-1");
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(30)));
  const Answers answers = server().Generate(LongRequest("chat", 16), &context);
  EXPECT_EQ(answers.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  for (const auto& [index, answer] : answers.by_index) {
    EXPECT_NE(answer.last.finish_reason(), v1::FINISH_REASON_STOP);
  }
  // The client's reset may come before the server's clock has reached the deadline.
  EXPECT_THAT(server().journal().Await("deadline-1").code,
              ::testing::AnyOf(absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kCancelled));
}

TEST_F(InterruptionTest, AClientThatVanishesIsForgotten) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->AddMetadata("x-request-id", "gone-1");
  auto channel = server().NewChannel(grpc::InsecureChannelCredentials());
  auto stub = v1::Inference::NewStub(channel);
  auto reader = stub->Generate(context.get(), LongRequest("chat", 16));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context->TryCancel();  // the library wants the call ended before its channel
  reader.reset();
  context.reset();
  stub.reset();
  channel.reset();
  EXPECT_EQ(server().journal().Await("gone-1").code, absl::StatusCode::kCancelled);
}

TEST_F(InterruptionTest, ACancelledEmbedEnds) {
  v1::EmbedRequest request;
  request.set_model("bert");
  for (int i = 0; i < 500; ++i) request.add_inputs()->set_text("a little dog and a cat");
  for (int i = 0; i < 5; ++i) {
    grpc::ClientContext context;
    absl::Notification done;
    grpc::Status result;
    v1::EmbedResponse response;
    server().inference().async()->Embed(&context, &request, &response, [&](grpc::Status status) {
      result = status;
      done.Notify();
    });
    context.TryCancel();
    done.WaitForNotification();
    EXPECT_EQ(result.error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(server().AwaitQuiet("bert"));
}

// A client whose transport takes next to nothing that is not read.
std::shared_ptr<grpc::Channel> TightChannel(const RunningServer& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4096);
  arguments.SetInt(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1);
  return server.NewChannel(grpc::InsecureChannelCredentials(), arguments);
}

v1::GenerateRequest BulkyRequest() {
  v1::GenerateRequest request = LongRequest("chat", 16);
  request.mutable_output()->set_logprobs(20);
  return request;
}

TEST(SlowReader, IsAbortedAfterTheStallTimeoutAndItsPagesComeBackAtOnce) {
  RunningServer server(
      [](ServerOptions* options) { options->send_stall_timeout = absl::Milliseconds(500); });
  const auto channel = TightChannel(server);
  const auto stub = v1::Inference::NewStub(channel);
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "slow-1");
  const auto reader = stub->Generate(&context, BulkyRequest());
  const RequestRecord record = server.journal().Await("slow-1");
  EXPECT_EQ(record.code, absl::StatusCode::kAborted);
  EXPECT_EQ(record.reason, "SLOW_READER");
  EXPECT_TRUE(server.AwaitQuiet("chat"));
  EXPECT_TRUE(server.Serves());
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
  }
  EXPECT_THAT(reader->Finish().error_code(),
              ::testing::AnyOf(grpc::StatusCode::ABORTED, grpc::StatusCode::CANCELLED));
}

TEST(SlowReader, ThatReadsAgainWithinTheGraceHearsWhy) {
  RunningServer server([](ServerOptions* options) {
    options->max_stream_bytes = 32 << 10;  // overflows long before the timeout
  });
  const auto channel = TightChannel(server);
  const auto stub = v1::Inference::NewStub(channel);
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, BulkyRequest());
  EXPECT_TRUE(server.AwaitQuiet("chat"));
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(DetailsOf(status).reason, "SLOW_READER");
}

TEST(SlowReader, DoesNotSlowOthersDown) {
  RunningServer server;
  const auto channel = TightChannel(server);
  const auto stub = v1::Inference::NewStub(channel);
  grpc::ClientContext contexts[4];
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (grpc::ClientContext& context : contexts) {
    readers.push_back(stub->Generate(&context, BulkyRequest()));
  }
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(server.Serves());
  for (grpc::ClientContext& context : contexts) context.TryCancel();
  for (const auto& reader : readers) reader->Finish();
}

TEST(Overload, AFullQueueIsRefusedWithAdvice) {
  RunningServer server([](ServerOptions* options) { options->engine.max_queued_requests = 1; });
  std::vector<std::thread> clients;
  std::atomic<int> refused = 0;
  for (int i = 0; i < 24; ++i) {
    clients.emplace_back([&] {
      grpc::ClientContext context;
      const Answers answers = server.Generate(LongRequest("chat", 16), &context);
      if (answers.status.ok()) return;
      ++refused;
      EXPECT_EQ(answers.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_TRUE(DetailsOf(answers.status).has_retry);
      EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(refused, 0);
  EXPECT_TRUE(server.Serves());
}

}  // namespace
}  // namespace nibble
