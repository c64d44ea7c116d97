// Everything that a client can get wrong, by its exact code, reason and field; and the server goes
// on serving.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/generic/generic_stub.h>

#include "absl/synchronization/notification.h"
#include "tests/support/running_server.h"

namespace nibble {
namespace {

using testing::Answers;
using testing::DetailsOf;
using testing::ErrorDetails;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RunningServer;

constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr auto kNotFound = grpc::StatusCode::NOT_FOUND;
constexpr auto kPrecondition = grpc::StatusCode::FAILED_PRECONDITION;

class BadInputTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = new RunningServer([](ServerOptions* options) {
      options->max_receive_message_bytes = 1 << 20;
      options->engine.caps.max_prompt_bytes = 1 << 19;
    });
  }
  static void TearDownTestSuite() { delete std::exchange(server_, nullptr); }
  void TearDown() override { EXPECT_TRUE(server().Serves()) << "after all that"; }
  RunningServer& server() { return *server_; }

  static v1::GenerateRequest Generate(const std::string& text) {
    v1::GenerateRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
    return request;
  }
  static v1::EmbedRequest Embed(const std::string& text) {
    v1::EmbedRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
    return request;
  }
  // The code that a call with these bytes for its message ends with.
  grpc::StatusCode Send(const std::string& method, const std::string& bytes) {
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::ClientContext context;
    grpc::Status result;
    absl::Notification done;
    grpc::GenericStub stub(server().channel());
    stub.UnaryCall(&context, method, {}, &request, &response, [&](grpc::Status status) {
      result = status;
      done.Notify();
    });
    done.WaitForNotification();
    return result.error_code();
  }
  void ExpectRefused(const grpc::Status& status, grpc::StatusCode code, const std::string& reason,
                     const std::string& field) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    const ErrorDetails details = DetailsOf(status);
    EXPECT_EQ(details.reason, reason) << status.error_message();
    EXPECT_EQ(details.field, field) << status.error_message();
    EXPECT_NE(status.error_message(), "");
    EXPECT_THAT(status.error_message(), Not(HasSubstr(NIBBLE_SOURCE_DIR)));
  }

 private:
  static RunningServer* server_;
};
RunningServer* BadInputTest::server_ = nullptr;

TEST_F(BadInputTest, GenerateRefusesByCodeReasonAndField) {
  struct Case {
    std::string request;
    grpc::StatusCode code;
    std::string reason, field;
  };
  const std::string prompt = "model: 'chat' text: 'Once' ";
  const auto sampling = [&](const std::string& text) { return prompt + "sampling {" + text + "}"; };
  const auto stopping = [&](const std::string& text) { return prompt + "stopping {" + text + "}"; };
  std::string many_stops;
  for (int i = 0; i < 1000; ++i) many_stops += "stop: 'x'";
  const Case cases[] = {
      {"model: 'none' text: 'Once'", kNotFound, "MODEL_NOT_FOUND", "model"},
      {"text: 'Once'", kInvalid, "MODEL_AMBIGUOUS", "model"},
      {"model: 'bert' text: 'Once'", kPrecondition, "MODEL_CANNOT_GENERATE", "model"},
      {"model: 'chat'", kInvalid, "NO_PROMPT", "prompt"},
      {"model: 'chat' text: ''", kInvalid, "EMPTY_PROMPT", "text"},
      {"model: 'chat' token_ids {}", kInvalid, "NO_PROMPT", "token_ids.ids"},
      {"model: 'chat' chat {}", kInvalid, "NO_PROMPT", "chat.messages"},
      {"model: 'chat' token_ids { ids: 99999 }", kInvalid, "TOKEN_OUT_OF_RANGE", "token_ids.ids"},
      {"model: 'chat' token_ids { ids: -1 }", kInvalid, "TOKEN_OUT_OF_RANGE", "token_ids.ids"},
      {"model: 'stories' text: 'Once'", kPrecondition, "NO_TOKENIZER", "text"},
      {"model: 'stories' chat { messages { role: 'user' } }", kPrecondition, "NO_TOKENIZER",
       "chat"},
      {"model: 'chat' text: '" + std::string(5000, 'z') + "'", kInvalid, "PROMPT_TOO_LONG",
       "prompt"},
      {"model: 'chat' text: '" + std::string(600'000, 'z') + "'", kInvalid, "OVER_CAP", "text"},
      {stopping("max_tokens: 0"), kInvalid, "VALUE_OUT_OF_RANGE", "stopping.max_tokens"},
      {stopping("max_tokens: -5"), kInvalid, "VALUE_OUT_OF_RANGE", "stopping.max_tokens"},
      {stopping("min_tokens: -1"), kInvalid, "VALUE_OUT_OF_RANGE", "stopping.min_tokens"},
      {stopping(many_stops), kInvalid, "OVER_CAP", "stopping.stop"},
      {stopping("stop: ''"), kInvalid, "EMPTY_STOP_STRING", "stopping.stop[0]"},
      {stopping("stop_token_ids: 99999"), kInvalid, "TOKEN_OUT_OF_RANGE",
       "stopping.stop_token_ids[0]"},
      {sampling("n: 1000"), kInvalid, "OVER_CAP", "sampling.n"},
      {sampling("n: 0"), kInvalid, "VALUE_OUT_OF_RANGE", "sampling.n"},
      {sampling("n: -1"), kInvalid, "VALUE_OUT_OF_RANGE", "sampling.n"},
      {sampling("top_k: -1"), kInvalid, "VALUE_OUT_OF_RANGE", "sampling.top_k"},
      {sampling("logit_bias { key: 99999 value: 1 }"), kInvalid, "TOKEN_OUT_OF_RANGE",
       "sampling.logit_bias"},
      {sampling("logit_bias { key: 5 value: nan }"), kInvalid, "VALUE_OUT_OF_RANGE",
       "sampling.logit_bias"},
      {prompt + "output { logprobs: 1000 }", kInvalid, "OVER_CAP", "output.logprobs"},
      {prompt + "output { logprobs: -1 }", kInvalid, "VALUE_OUT_OF_RANGE", "output.logprobs"},
      {prompt + "output { prompt_logprobs: -1 }", kInvalid, "VALUE_OUT_OF_RANGE",
       "output.prompt_logprobs"},
      {prompt + "priority: 77", kInvalid, "UNKNOWN_ENUM_VALUE", "priority"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.request.substr(0, 200));
    const Answers answers = server().Generate(Generate(c.request));
    ExpectRefused(answers.status, c.code, c.reason, c.field);
    EXPECT_EQ(answers.num_messages, 0);
  }
}

TEST_F(BadInputTest, EverySamplingValueMustBeANumberInRange) {
  const char* const fields[] = {
      "temperature",       "top_p",           "min_p", "repetition_penalty",
      "frequency_penalty", "presence_penalty"};
  for (const char* field : fields) {
    for (const char* value : {"nan", "inf", "-inf", "-3"}) {
      SCOPED_TRACE(std::string(field) + ": " + value);
      const Answers answers = server().Generate(Generate(
          std::string("model: 'chat' text: 'Once' sampling {") + field + ": " + value + "}"));
      ExpectRefused(answers.status, kInvalid, "VALUE_OUT_OF_RANGE",
                    std::string("sampling.") + field);
    }
  }
}

TEST_F(BadInputTest, EmbedRefusesByCodeReasonAndField) {
  struct Case {
    std::string request;
    grpc::StatusCode code;
    std::string reason, field;
  };
  std::string many_inputs = "model: 'bert' ";
  for (int i = 0; i < 2049; ++i) many_inputs += "inputs { text: '' }";
  std::string words = "inputs { text: '";
  for (int i = 0; i < 400; ++i) words += "a ";
  words += "' }";
  const Case cases[] = {
      {"model: 'none' inputs { text: 'a' }", kNotFound, "MODEL_NOT_FOUND", "model"},
      {"model: 'chat' inputs { text: 'a' }", kPrecondition, "MODEL_CANNOT_EMBED", "model"},
      {"model: 'bert'", kInvalid, "NO_INPUTS", "inputs"},
      {"model: 'bert' inputs {}", kInvalid, "INPUT_MISSING", "inputs[0]"},
      {"model: 'bert' inputs { text: 'a' } inputs { token_ids {} }", kInvalid, "EMPTY_PROMPT",
       "inputs[1]"},
      {"model: 'bert' inputs { text: 'a' } inputs { token_ids { ids: 5000 } }", kInvalid,
       "TOKEN_OUT_OF_RANGE", "inputs[1]"},
      {"model: 'bert' inputs { text: 'a' } " + words, kInvalid, "INPUT_TOO_LONG", "inputs[1]"},
      {many_inputs, kInvalid, "OVER_CAP", "inputs"},
      {"model: 'bert' inputs { text: 'a' } dimensions: -1", kInvalid, "VALUE_OUT_OF_RANGE",
       "dimensions"},
      {"model: 'bert' inputs { text: 'a' } dimensions: 49", kInvalid, "VALUE_OUT_OF_RANGE",
       "dimensions"},
      {"model: 'bert' inputs { text: 'a' } prompt_name: 'x'", kInvalid, "UNKNOWN_PROMPT_NAME",
       "prompt_name"},
      {"model: 'bert' inputs { text: 'a' } pooling: 9", kInvalid, "UNKNOWN_ENUM_VALUE", "pooling"},
      {"model: 'bert' inputs { text: 'a' } truncation: 9", kInvalid, "UNKNOWN_ENUM_VALUE",
       "truncation"},
      {"model: 'bert' inputs { text: 'a' } encoding: 9", kInvalid, "UNKNOWN_ENUM_VALUE",
       "encoding"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.request.substr(0, 200));
    v1::EmbedResponse response;
    ExpectRefused(server().Embed(Embed(c.request), &response), c.code, c.reason, c.field);
  }
}

TEST_F(BadInputTest, TokenizeAndDetokenizeRefuseToo) {
  v1::TokenizeRequest tokenize;
  v1::TokenizeResponse tokens;
  const auto tokenized = [&] {
    grpc::ClientContext context;
    return server().inference().Tokenize(&context, tokenize, &tokens);
  };
  tokenize.set_model("none");
  tokenize.add_texts("a");
  EXPECT_EQ(tokenized().error_code(), kNotFound);
  tokenize.set_model("stories");
  EXPECT_EQ(tokenized().error_code(), kPrecondition);
  tokenize.set_model("chat");
  EXPECT_TRUE(tokenized().ok());
  for (int i = 0; i < 2048; ++i) tokenize.add_texts("a");
  EXPECT_EQ(tokenized().error_code(), kInvalid);

  v1::DetokenizeRequest detokenize;
  v1::DetokenizeResponse texts;
  const auto detokenized = [&] {
    grpc::ClientContext context;
    return server().inference().Detokenize(&context, detokenize, &texts);
  };
  detokenize.set_model("chat");
  detokenize.add_tokens()->add_ids(5);
  EXPECT_TRUE(detokenized().ok());
  detokenize.add_tokens()->add_ids(-1);
  EXPECT_EQ(detokenized().error_code(), kInvalid);
}

TEST_F(BadInputTest, AMessageOverTheLimitIsRefusedByGrpc) {
  v1::GenerateRequest request = Generate("model: 'chat'");
  request.set_text(std::string(2 << 20, 'a'));
  EXPECT_EQ(server().Generate(request).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

// What gRPC cannot parse never reaches a handler; its callback API answers UNIMPLEMENTED.
TEST_F(BadInputTest, InvalidUtf8IsRefusedByGrpc) {
  // A GenerateRequest with model "chat" and a text of one byte 0xFF: the C++ client would not
  // write it.
  const std::string bytes = std::string("\x0A\x04") + "chat" + "\x12\x01\xFF";
  EXPECT_EQ(Send("/nibble.v1.Inference/Generate", bytes), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(BadInputTest, GarbageForAMessageIsRefusedByGrpc) {
  EXPECT_EQ(Send("/nibble.v1.Inference/Embed", std::string(1000, '\xFF')),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(BadInputTest, AnUnknownMethodIsUnimplemented) {
  EXPECT_EQ(Send("/nibble.v1.Inference/Score", ""), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(BadInputTest, ABadTenantIsRefusedAndARecordKept) {
  grpc::ClientContext context;
  context.AddMetadata("x-tenant", std::string(65, 'a'));
  context.AddMetadata("x-request-id", "bad-tenant-1");
  const Answers answers = server().Generate(Generate("model: 'chat' text: 'Once'"), &context);
  ExpectRefused(answers.status, kInvalid, "BAD_METADATA", "x-tenant");
  const RequestRecord record = server().journal().Await("bad-tenant-1");
  EXPECT_EQ(record.code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(record.reason, "BAD_METADATA");
  EXPECT_EQ(record.model, "chat");
}

TEST_F(BadInputTest, RecordsNameNoModelThatIsNotLoaded) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "unknown-model-1");
  server().Generate(Generate("model: 'anything at all' text: 'Once'"), &context);
  const RequestRecord record = server().journal().Await("unknown-model-1");
  EXPECT_EQ(record.model, "");
  EXPECT_EQ(record.reason, "MODEL_NOT_FOUND");
}

}  // namespace
}  // namespace nibble
