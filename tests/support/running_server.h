// A real server in this process, on a port of the system's choice, with the small models of
// tests/golden/models, and clients for it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "grpc/health/v1/health.grpc.pb.h"
#include "nibble/v1/control.grpc.pb.h"
#include "nibble/v1/inference.grpc.pb.h"
#include "nibble/v1/models.grpc.pb.h"
#include "service/server.h"
#include "tests/support/answers.h"
#include "tests/support/journal.h"

namespace nibble::testing {

inline std::string ModelPath(const std::string& name) {
  return std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/models/" + name;
}

inline LoadRequest Load(const std::string& name, const std::string& model) {
  LoadRequest request;
  request.name = name;
  request.source = ModelPath(model);
  return request;
}

class RunningServer {
 public:
  using Change = std::function<void(ServerOptions*)>;

  // "chat" (a Llama with a tokenizer and a template), "bert" (embeds), "stories" (a Llama without a
  // tokenizer).
  explicit RunningServer(const Change& change = nullptr) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.engine.backend.num_threads = 1;
    options.engine.memory_bytes = int64_t{1} << 30;
    options.models = {Load("chat", "tiny_chat"), Load("bert", "tiny_bert"),
                      Load("stories", "stories260k")};
    options.observer = journal_.observer();
    if (change) change(&options);
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(std::move(options));
    if (!server.ok()) ADD_FAILURE() << server.status();
    if (!server.ok()) return;
    server_ = *std::move(server);
    const absl::Status loaded = server_->LoadModels();
    EXPECT_TRUE(loaded.ok()) << loaded;
    Connect(grpc::InsecureChannelCredentials());
  }

  Server& operator*() { return *server_; }
  Server* operator->() { return server_.get(); }
  Journal& journal() { return journal_; }
  v1::Inference::Stub& inference() { return *inference_; }
  v1::Models::Stub& models() { return *models_; }
  v1::Control::Stub& control() { return *control_; }
  grpc::health::v1::Health::Stub& health() { return *health_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // A connection of its own, with channel arguments.
  std::shared_ptr<grpc::Channel> NewChannel(
      const std::shared_ptr<grpc::ChannelCredentials>& credentials,
      grpc::ChannelArguments arguments = {}) const {
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server_->address(), credentials, arguments);
  }
  void Connect(const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    channel_ = NewChannel(credentials);
    inference_ = v1::Inference::NewStub(channel_);
    models_ = v1::Models::NewStub(channel_);
    control_ = v1::Control::NewStub(channel_);
    health_ = grpc::health::v1::Health::NewStub(channel_);
  }

  Answers Generate(const v1::GenerateRequest& request, grpc::ClientContext* context) {
    Answers answers;
    const auto reader = inference_->Generate(context, request);
    v1::GenerateResponse message;
    while (reader->Read(&message)) answers.Add(message);
    answers.status = reader->Finish();
    return answers;
  }
  Answers Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    return Generate(request, &context);
  }
  grpc::Status Embed(const v1::EmbedRequest& request, v1::EmbedResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    return inference_->Embed(&context, request, response);
  }
  // The health of a name; UNKNOWN when Check answers NOT_FOUND.
  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& name) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    grpc::health::v1::HealthCheckResponse response;
    request.set_service(name);
    const grpc::Status status = health_->Check(&context, request, &response);
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND);
    return response.status();
  }
  // Whether the server answers a plain request, and right.
  bool Serves() {
    v1::GenerateRequest request;
    request.set_model("chat");
    request.set_text("Once upon a time");
    request.mutable_stopping()->set_max_tokens(4);
    request.mutable_stopping()->set_ignore_eos(true);
    const Answers answers = Generate(request);
    EXPECT_TRUE(answers.status.ok()) << answers.status.error_message();
    return answers.status.ok() && answers.by_index.at(0).last.usage().completion_tokens() == 4;
  }
  // True once the engine holds no page and no request of the model.
  bool AwaitQuiet(const std::string& model) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      const EngineStats stats = server_->engine().Stats();
      const ModelStats& counts = stats.models.at(model);
      if (counts.kv_usage_ratio == 0 && counts.running[0] == 0 && counts.waiting[0] == 0 &&
          counts.running[1] == 0 && counts.waiting[1] == 0) {
        return true;
      }
      std::this_thread::yield();
    }
    return false;
  }

 private:
  Journal journal_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Models::Stub> models_;
  std::unique_ptr<v1::Control::Stub> control_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace nibble::testing
