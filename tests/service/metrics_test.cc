// /metrics tells exactly what the clients of a small crowd saw.
#include "service/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/fd.h"
#include "tests/support/running_server.h"

namespace nibble {
namespace {

using testing::Answers;
using testing::kPatience;
using testing::RunningServer;

// What one scrape said: "name{label="value",…}" to value.
class Scrape {
 public:
  explicit Scrape(std::string text) : text_(std::move(text)) {
    for (const absl::string_view line : absl::StrSplit(text_, '\n', absl::SkipEmpty())) {
      if (line[0] == '#') continue;
      const size_t space = line.rfind(' ');
      double value = 0;
      EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
      values_[std::string(line.substr(0, space))] += value;
    }
  }
  // The sum over every series of that name that has these labels: {"model=\"chat\"", …}.
  double Sum(const std::string& name, const std::vector<std::string>& labels = {}) const {
    double sum = 0;
    for (const auto& [series, value] : values_) {
      if (series.substr(0, series.find('{')) != name) continue;
      bool all = true;
      for (const std::string& label : labels) all = all && series.find(label) != std::string::npos;
      if (all) sum += value;
    }
    return sum;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::map<std::string, double> values_;
};

// The body of GET /metrics.
std::string Get(int port) {
  const Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  EXPECT_EQ(send(client.get(), request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  ssize_t count = 0;
  while ((count = recv(client.get(), buffer, sizeof(buffer), 0)) > 0) {
    answer.append(buffer, static_cast<size_t>(count));
  }
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer.substr(0, 60);
  return answer.substr(answer.find("\r\n\r\n") + 4);
}

// A server whose requests are counted.
class MetricsTest : public ::testing::Test {
 protected:
  void SetUp() override { metrics_->Attach(&server_->engine()); }
  void TearDown() override { metrics_->Detach(); }
  RunningServer& server() { return server_; }
  const std::shared_ptr<Metrics>& metrics() const { return metrics_; }
  Scrape Read() const {
    return Scrape(prometheus::TextSerializer().Serialize(metrics_->Collect()));
  }
  // A request is counted when its stream is over on the server, which may be after the client has
  // its status.
  Scrape ReadAfter(double requests) const {
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      Scrape scrape = Read();
      if (scrape.Sum("nibble_requests_total") >= requests) return scrape;
      std::this_thread::yield();
    }
    ADD_FAILURE() << "fewer than " << requests << " requests were counted";
    return Read();
  }

 private:
  std::shared_ptr<Metrics> metrics_ = std::make_shared<Metrics>();
  RunningServer server_{[this](ServerOptions* options) {
    options->observer.on_request =
        [this, journal = options->observer.on_request](const RequestRecord& record) {
          metrics_->Count(record);
          journal(record);
        };
    options->model_root = testing::ModelPath("");
  }};
};

v1::GenerateRequest Story(int i) {
  v1::GenerateRequest request;
  request.set_model("chat");
  request.set_text(absl::StrCat("Once upon a time there were ", i, " dogs"));
  request.mutable_sampling()->set_temperature(i % 2 == 0 ? 0 : 1);
  request.mutable_sampling()->set_seed(i);
  request.mutable_stopping()->set_max_tokens(8 + i);
  return request;
}

TEST_F(MetricsTest, CountsAndSumsAreWhatTheClientsSaw) {
  constexpr int kStreams = 12, kEmbeds = 4;
  std::vector<Answers> answers(kStreams);
  std::vector<v1::EmbedResponse> embeddings(kEmbeds);
  std::vector<std::thread> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.emplace_back([&, i] { answers[static_cast<size_t>(i)] = server().Generate(Story(i)); });
  }
  for (int i = 0; i < kEmbeds; ++i) {
    clients.emplace_back([&, i] {
      v1::EmbedRequest request;
      request.set_model("bert");
      for (int j = 0; j <= i; ++j) request.add_inputs()->set_text(absl::StrCat("a cat and ", j));
      EXPECT_TRUE(server().Embed(request, &embeddings[static_cast<size_t>(i)]).ok());
    });
  }
  for (std::thread& client : clients) client.join();
  const Scrape scrape = ReadAfter(kStreams + kEmbeds);

  double prompts = 0, completions = 0, first_token_ms = 0, decode_ms = 0, queue_ms = 0;
  for (const Answers& answer : answers) {
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    const v1::GenerateResponse& last = answer.by_index.at(0).last;
    prompts += static_cast<double>(last.usage().prompt_tokens());
    completions += static_cast<double>(last.usage().completion_tokens());
    first_token_ms += last.timing().time_to_first_token_ms();
    decode_ms += last.timing().decode_ms();
    queue_ms += last.timing().queue_ms();
  }
  double embed_prompts = 0;
  for (const v1::EmbedResponse& embedding : embeddings) {
    embed_prompts += static_cast<double>(embedding.usage().prompt_tokens());
  }

  const std::string chat = "model=\"chat\"", generate = "op=\"generate\"", embed = "op=\"embed\"";
  EXPECT_EQ(scrape.Sum("nibble_requests_total", {generate, chat, "code=\"OK\""}), kStreams);
  EXPECT_EQ(scrape.Sum("nibble_requests_total", {embed, "model=\"bert\"", "code=\"OK\""}), kEmbeds);
  EXPECT_EQ(scrape.Sum("nibble_prompt_tokens_total", {generate, chat}), prompts);
  EXPECT_EQ(scrape.Sum("nibble_prompt_tokens_total", {embed}), embed_prompts);
  EXPECT_EQ(scrape.Sum("nibble_generation_tokens_total", {chat}), completions);
  EXPECT_EQ(scrape.Sum("nibble_finished_total", {chat}), kStreams);
  EXPECT_EQ(scrape.Sum("nibble_request_prompt_tokens_sum", {generate}), prompts);
  EXPECT_EQ(scrape.Sum("nibble_request_generation_tokens_sum"), completions);
  EXPECT_EQ(scrape.Sum("nibble_time_to_first_token_seconds_count", {chat}), kStreams);
  EXPECT_EQ(scrape.Sum("nibble_inter_token_latency_seconds_count", {chat}), completions - kStreams);
  EXPECT_EQ(scrape.Sum("nibble_e2e_request_latency_seconds_count", {generate}), kStreams);
  EXPECT_EQ(scrape.Sum("nibble_e2e_request_latency_seconds_count", {embed}), kEmbeds);
  constexpr double kTextDigits = 1e-3;  // Prometheus' text form keeps about six digits
  EXPECT_NEAR(scrape.Sum("nibble_time_to_first_token_seconds_sum", {chat}) * 1e3, first_token_ms,
              first_token_ms * kTextDigits);
  EXPECT_NEAR(scrape.Sum("nibble_request_decode_time_seconds_sum", {chat}) * 1e3, decode_ms,
              decode_ms * kTextDigits);
  EXPECT_NEAR(scrape.Sum("nibble_inter_token_latency_seconds_sum", {chat}) * 1e3, decode_ms,
              decode_ms * kTextDigits);
  EXPECT_NEAR(scrape.Sum("nibble_request_queue_time_seconds_sum", {generate}) * 1e3, queue_ms,
              queue_ms * kTextDigits + 1e-3);
  EXPECT_EQ(scrape.Sum("nibble_num_requests_running"), 0);
  EXPECT_EQ(scrape.Sum("nibble_num_requests_waiting"), 0);
  EXPECT_EQ(scrape.Sum("nibble_kv_cache_usage_ratio"), 0);
}

TEST_F(MetricsTest, BucketsAreCumulativeAndEndWithTheCount) {
  ASSERT_TRUE(server().Generate(Story(5)).status.ok());
  const Scrape scrape = ReadAfter(1);
  const std::string bucket = "nibble_inter_token_latency_seconds_bucket", chat = "model=\"chat\"";
  double last = 0;
  int buckets = 0;
  for (const absl::string_view line : absl::StrSplit(scrape.text(), '\n')) {
    if (line.find(bucket) != 0 || line.find(chat) == absl::string_view::npos) continue;
    double value = 0;
    ASSERT_TRUE(absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value));
    EXPECT_GE(value, last);
    last = value;
    ++buckets;
  }
  EXPECT_GT(buckets, 5);
  EXPECT_EQ(last, scrape.Sum("nibble_inter_token_latency_seconds_count", {chat}));
}

TEST_F(MetricsTest, RefusalsCountByCodeAndReason) {
  v1::GenerateRequest nobody = Story(1), silent = Story(2);
  nobody.set_model("no such model");
  silent.mutable_sampling()->set_temperature(-1);
  EXPECT_EQ(server().Generate(nobody).status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(server().Generate(silent).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const Scrape scrape = ReadAfter(2);
  EXPECT_EQ(scrape.Sum("nibble_requests_total", {"code=\"NOT_FOUND\"", "model=\"\""}), 1)
      << "a client may not name a series";
  EXPECT_EQ(scrape.Sum("nibble_requests_total", {"code=\"INVALID_ARGUMENT\""}), 1);
  EXPECT_EQ(scrape.Sum("nibble_rejections_total"), 2);
  EXPECT_EQ(scrape.Sum("nibble_generation_tokens_total"), 0);
}

TEST_F(MetricsTest, MemoryIsWhatTheModelsTell) {
  v1::ListModelsResponse models;
  grpc::ClientContext context;
  ASSERT_TRUE(server().models().ListModels(&context, {}, &models).ok());
  const Scrape scrape = Read();
  double all = 0;
  for (const v1::Model& model : models.models()) {
    double bytes = 0;
    for (const v1::MemoryItem& item : model.memory()) bytes += static_cast<double>(item.bytes());
    EXPECT_NEAR(scrape.Sum("nibble_memory_bytes", {absl::StrCat("model=\"", model.name(), "\"")}),
                bytes, bytes * 1e-5)
        << model.name();
    all += bytes;
  }
  EXPECT_GT(all, 0);
  EXPECT_NEAR(scrape.Sum("nibble_memory_bytes"), all, all * 0.01);
  EXPECT_GE(scrape.Sum("nibble_process_memory_bytes", {"kind=\"resident\""}), all);
  EXPECT_EQ(scrape.Sum("nibble_memory_budget_bytes"), double{1 << 30});
  EXPECT_EQ(scrape.Sum("nibble_model_info"), models.models_size());
}

TEST_F(MetricsTest, AnUnloadedModelsSeriesAreGone) {
  ASSERT_TRUE(server().Generate(Story(3)).status.ok());
  EXPECT_EQ(ReadAfter(1).Sum("nibble_requests_total", {"model=\"chat\""}), 1);
  grpc::ClientContext context;
  v1::UnloadModelRequest request;
  v1::UnloadModelResponse response;
  request.set_name("chat");
  const grpc::Status status = server().models().UnloadModel(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(Read().text().find("model=\"chat\""), std::string::npos);
}

TEST_F(MetricsTest, AreServedOverHttpOnAnAddressOfTheirOwn) {
  const auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", metrics());
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_EQ(Scrape(Get((*endpoint)->port())).Sum("nibble_build_info"), 1);
  const auto second =
      MetricsEndpoint::Start(absl::StrCat("127.0.0.1:", (*endpoint)->port()), metrics());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace nibble
