// Requests in, pieces and vectors out: absent stays absent, and nothing is lost.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "engine/status.h"
#include "service/convert.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

template <typename Proto>
Proto Text(const std::string& text) {
  Proto proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return proto;
}

TEST(GenerateRequestFromProto, AbsentStaysAbsent) {
  const absl::StatusOr<GenerateRequest> request = FromProto(v1::GenerateRequest());
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(std::holds_alternative<std::monostate>(request->prompt));
  EXPECT_FALSE(request->sampling.temperature.has_value());
  EXPECT_FALSE(request->sampling.top_k.has_value());
  EXPECT_FALSE(request->sampling.top_p.has_value());
  EXPECT_FALSE(request->sampling.min_p.has_value());
  EXPECT_FALSE(request->sampling.repetition_penalty.has_value());
  EXPECT_FALSE(request->sampling.frequency_penalty.has_value());
  EXPECT_FALSE(request->sampling.presence_penalty.has_value());
  EXPECT_FALSE(request->sampling.seed.has_value());
  EXPECT_EQ(request->sampling.n, 1);
  EXPECT_FALSE(request->stopping.max_tokens.has_value());
  EXPECT_EQ(request->output.logprobs, -1);
  EXPECT_EQ(request->output.prompt_logprobs, -1);
  EXPECT_EQ(request->priority, Priority::kNormal);
  EXPECT_TRUE(request->add_special_tokens);
}

TEST(GenerateRequestFromProto, KeepsEveryField) {
  const absl::StatusOr<GenerateRequest> request = FromProto(Text<v1::GenerateRequest>(R"pb(
    model: "m"
    text: "Hello"
    sampling {
      temperature: 0
      top_k: 0
      top_p: 0.5
      min_p: 0.25
      repetition_penalty: 1.5
      frequency_penalty: -1
      presence_penalty: 2
      logit_bias { key: 3 value: -2 }
      logit_bias { key: 4 value: -inf }
      seed: 0
      n: 5
    }
    stopping {
      max_tokens: 0
      min_tokens: 2
      stop: "a"
      stop: "b"
      stop_token_ids: 7
      ignore_eos: true
      include_stop: true
    }
    output { token_ids: true logprobs: 0 prompt_logprobs: 2 }
    priority: PRIORITY_HIGH
    add_special_tokens: false
  )pb"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->model, "m");
  EXPECT_EQ(std::get<TextPrompt>(request->prompt).text, "Hello");
  EXPECT_EQ(request->sampling.temperature, 0.0f);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_EQ(request->sampling.top_p, 0.5f);
  EXPECT_EQ(request->sampling.min_p, 0.25f);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(request->sampling.frequency_penalty, -1.0f);
  EXPECT_EQ(request->sampling.presence_penalty, 2.0f);
  EXPECT_THAT(request->sampling.logit_bias,
              ElementsAre(Pair(3, -2.0f), Pair(4, -std::numeric_limits<float>::infinity())));
  EXPECT_EQ(request->sampling.seed, 0u);
  EXPECT_EQ(request->sampling.n, 5);
  EXPECT_EQ(request->stopping.max_tokens, 0) << "a zero is not an absence: the engine refuses it";
  EXPECT_EQ(request->stopping.min_tokens, 2);
  EXPECT_THAT(request->stopping.stop, ElementsAre("a", "b"));
  EXPECT_THAT(request->stopping.stop_token_ids, ElementsAre(7));
  EXPECT_TRUE(request->stopping.ignore_eos);
  EXPECT_TRUE(request->stopping.include_stop);
  EXPECT_TRUE(request->output.token_ids);
  EXPECT_EQ(request->output.logprobs, 0);
  EXPECT_EQ(request->output.prompt_logprobs, 2);
  EXPECT_EQ(request->priority, Priority::kHigh);
  EXPECT_FALSE(request->add_special_tokens);
}

TEST(GenerateRequestFromProto, KnowsTheThreeKindsOfPrompt) {
  auto request = FromProto(Text<v1::GenerateRequest>("token_ids { ids: 5 ids: -1 }"));
  EXPECT_THAT(std::get<TokenPrompt>(request->prompt).ids, ElementsAre(5, -1));
  request = FromProto(Text<v1::GenerateRequest>(R"pb(chat {
                                                       messages { role: "user" content: "hi" }
                                                       messages { role: "x" }
                                                     })pb"));
  const ChatPrompt& chat = std::get<ChatPrompt>(request->prompt);
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[0].role, "user");
  EXPECT_EQ(chat.messages[0].content, "hi");
  request = FromProto(Text<v1::GenerateRequest>(R"pb(text: "")pb"));
  EXPECT_TRUE(std::holds_alternative<TextPrompt>(request->prompt)) << "empty is not missing";
}

TEST(GenerateRequestFromProto, RefusesWhatOnlyTheWireCanGetWrong) {
  struct Case {
    const char* text;
    const char* field;
  };
  for (const Case& c : {Case{"output { logprobs: -1 }", "output.logprobs"},
                        Case{"output { prompt_logprobs: -5 }", "output.prompt_logprobs"}}) {
    const absl::Status status = FromProto(Text<v1::GenerateRequest>(c.text)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_EQ(FieldOf(status), c.field);
  }
  v1::GenerateRequest proto;
  proto.set_priority(static_cast<v1::Priority>(99));
  const absl::Status status = FromProto(proto).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "UNKNOWN_ENUM_VALUE");
  EXPECT_EQ(FieldOf(status), "priority");
}

TEST(EmbedRequestFromProto, KeepsEveryField) {
  const absl::StatusOr<EmbedRequest> request = FromProto(Text<v1::EmbedRequest>(R"pb(
    model: "m"
    inputs { text: "" }
    inputs { token_ids { ids: 1 ids: 2 } }
    dimensions: 8
    normalize: false
    pooling: POOLING_CLS
    prompt_name: "query"
    truncation: TRUNCATION_LEFT
  )pb"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(std::get<TextPrompt>(request->inputs[0]).text, "");
  EXPECT_THAT(std::get<TokenPrompt>(request->inputs[1]).ids, ElementsAre(1, 2));
  EXPECT_EQ(request->dimensions, 8);
  EXPECT_EQ(request->normalize, false);
  EXPECT_EQ(request->pooling, Pooling::kCls);
  EXPECT_EQ(request->prompt_name, "query");
  EXPECT_EQ(request->truncation, Truncation::kLeft);
}

TEST(EmbedRequestFromProto, TellsWhichInputIsMissing) {
  const absl::Status status = FromProto(Text<v1::EmbedRequest>(R"pb(inputs { text: "a" }
                                                                    inputs {})pb"))
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "inputs[1]");
}

TEST(EmbedRequestFromProto, RefusesUnknownEnumValues) {
  v1::EmbedRequest pooling, truncation, encoding;
  pooling.set_pooling(static_cast<v1::Pooling>(9));
  truncation.set_truncation(static_cast<v1::Truncation>(-3));
  encoding.set_encoding(static_cast<v1::Encoding>(4));
  EXPECT_EQ(FieldOf(FromProto(pooling).status()), "pooling");
  EXPECT_EQ(FieldOf(FromProto(truncation).status()), "truncation");
  EXPECT_EQ(FieldOf(EncodingOf(encoding).status()), "encoding");
  EXPECT_EQ(*EncodingOf(v1::EmbedRequest()), v1::ENCODING_FLOAT);
}

TEST(GenerateResponseToProto, DropsIdsThatNobodyAskedFor) {
  GenerateChunk chunk;
  chunk.index = 1;
  chunk.text = "ab";
  chunk.token_ids = {4, 5};
  v1::GenerateResponse proto;
  ToProto(chunk, false, &proto);
  EXPECT_EQ(proto.index(), 1);
  EXPECT_EQ(proto.text(), "ab");
  EXPECT_EQ(proto.token_ids_size(), 0);
  EXPECT_FALSE(proto.has_usage());
  EXPECT_FALSE(proto.has_seed());
  ToProto(chunk, true, &proto);
  EXPECT_THAT(proto.token_ids(), ElementsAre(4, 5));
}

TEST(GenerateResponseToProto, TellsTheEndOfAnIndex) {
  GenerateChunk chunk;
  chunk.finish_reason = FinishReason::kStop;
  chunk.stop_text = "END";
  chunk.usage = {3, 1, 2};
  chunk.timing = {1, 2, 3, 4};
  chunk.model = "m";
  chunk.logprobs.push_back({5, "\xC3", -0.5f, {{6, "x", -0.25f}}});
  v1::GenerateResponse proto;
  ToProto(chunk, false, &proto);
  EXPECT_EQ(proto.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(proto.stop().text(), "END");
  EXPECT_EQ(proto.usage().prompt_tokens(), 3);
  EXPECT_EQ(proto.usage().cached_prompt_tokens(), 1);
  EXPECT_EQ(proto.usage().completion_tokens(), 2);
  EXPECT_EQ(proto.timing().time_to_first_token_ms(), 4);
  EXPECT_EQ(proto.model(), "m");
  EXPECT_TRUE(proto.has_seed()) << "a seed of zero is told too";
  EXPECT_EQ(proto.logprobs(0).token(), "\xC3");
  EXPECT_EQ(proto.logprobs(0).top(0).token_id(), 6);
  chunk.finish_reason = FinishReason::kLength;
  chunk.stop_text.reset();
  ToProto(chunk, false, &proto);
  EXPECT_EQ(proto.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_FALSE(proto.has_stop());
}

TEST(EmbedResponseToProto, PacksLittleEndian) {
  EmbedResult result;
  result.embeddings.push_back({{1.0f, -0.5f, 65504.0f, 1e-8f, 0.1f}, 7, true});
  result.model = "m";
  v1::EmbedResponse floats, fp32, fp16;
  ToProto(result, v1::ENCODING_FLOAT, &floats);
  ToProto(result, v1::ENCODING_BYTES_FP32, &fp32);
  ToProto(result, v1::ENCODING_BYTES_FP16, &fp16);
  EXPECT_THAT(floats.embeddings(0).values(), ElementsAre(1.0f, -0.5f, 65504.0f, 1e-8f, 0.1f));
  EXPECT_EQ(floats.embeddings(0).packed(), "");
  EXPECT_EQ(floats.embeddings(0).num_tokens(), 7);
  EXPECT_TRUE(floats.embeddings(0).truncated());
  EXPECT_EQ(floats.model(), "m");
  EXPECT_EQ(fp32.embeddings(0).values_size(), 0);
  EXPECT_EQ(fp32.embeddings(0).packed().substr(0, 8), std::string("\0\0\x80\x3F\0\0\0\xBF", 8));
  EXPECT_EQ(fp32.embeddings(0).packed().size(), 20u);
  EXPECT_EQ(fp16.embeddings(0).packed(), std::string("\0\x3C\0\xB8\xFF\x7B\0\0\x66\x2E", 10));
}

TEST(TokenizeResponseToProto, KeepsIdsAndOffsets) {
  v1::TokenizeResponse proto;
  ToProto(std::vector<Encoding>{{{1, 2}, {{0, 0}, {0, 3}}}, {}}, &proto);
  ASSERT_EQ(proto.tokens_size(), 2);
  EXPECT_THAT(proto.tokens(0).ids(), ElementsAre(1, 2));
  EXPECT_EQ(proto.tokens(0).offsets(1).end(), 3);
  EXPECT_EQ(proto.tokens(1).ids_size(), 0);
}

}  // namespace
}  // namespace nibble
