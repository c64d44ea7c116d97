// Listing, estimating, loading and unloading by RPC.
#include "service/model_service.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <thread>

#include "tests/support/running_server.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using grpc::health::v1::HealthCheckResponse;
using testing::Answers;
using testing::DetailsOf;
using ::testing::HasSubstr;
using testing::kPatience;
using testing::LongRequest;
using ::testing::Not;
using testing::RunningServer;
using testing::TempDir;

class ModelServiceTest : public ::testing::Test {
 protected:
  ModelServiceTest()
      : server_([](ServerOptions* options) {
          options->models.resize(1);
          options->model_root = std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/models";
        }) {}

  struct Loaded {
    grpc::Status status;
    std::vector<v1::LoadProgress> progress;
  };
  Loaded Load(const std::string& name, const std::string& source,
              const v1::LoadOptions& options = {}) {
    v1::LoadModelRequest request;
    request.set_name(name);
    request.set_source(source);
    *request.mutable_options() = options;
    grpc::ClientContext context;
    const auto reader = server_.models().LoadModel(&context, request);
    Loaded loaded;
    v1::LoadProgress progress;
    while (reader->Read(&progress)) loaded.progress.push_back(progress);
    loaded.status = reader->Finish();
    return loaded;
  }
  grpc::Status Unload(const std::string& name, double timeout_ms = 10'000) {
    grpc::ClientContext context;
    v1::UnloadModelRequest request;
    v1::UnloadModelResponse response;
    request.set_name(name);
    request.set_timeout_ms(timeout_ms);
    return server_.models().UnloadModel(&context, request, &response);
  }
  grpc::Status Estimate(const std::string& source, v1::EstimateModelResponse* response,
                        const v1::LoadOptions& options = {}) {
    grpc::ClientContext context;
    v1::EstimateModelRequest request;
    request.set_source(source);
    *request.mutable_options() = options;
    return server_.models().EstimateModel(&context, request, response);
  }
  int64_t Used() {
    grpc::ClientContext context;
    v1::GetMemoryResponse memory;
    EXPECT_TRUE(server_.control().GetMemory(&context, {}, &memory).ok());
    return memory.devices(0).used_bytes();
  }

  RunningServer server_;
};

TEST_F(ModelServiceTest, LoadsServesAndUnloads) {
  const int64_t before = Used();
  const Loaded loaded = Load("m", "tiny_bert");
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.error_message();
  ASSERT_FALSE(loaded.progress.empty());
  const v1::LoadProgress& last = loaded.progress.back();
  EXPECT_EQ(last.stage(), "ready");
  EXPECT_EQ(last.done_bytes(), last.total_bytes());
  EXPECT_EQ(last.model().name(), "m");
  EXPECT_EQ(last.model().source(), "tiny_bert");
  EXPECT_EQ(last.model().state(), v1::MODEL_STATE_READY);
  EXPECT_TRUE(last.model().can_embed());
  EXPECT_EQ(last.model().dimensions(), 48);
  EXPECT_EQ(last.model().max_seq_length(), 48);
  EXPECT_EQ(Used(), before + last.model().memory_bytes());
  EXPECT_EQ(server_.Health("nibble.v1.Inference/m"), HealthCheckResponse::SERVING);

  v1::EmbedRequest request;
  request.set_model("m");
  request.add_inputs()->set_text("a little dog");
  v1::EmbedResponse response;
  EXPECT_TRUE(server_.Embed(request, &response).ok());
  EXPECT_EQ(response.embeddings(0).values_size(), 48);
  EXPECT_EQ(response.model(), "m");

  EXPECT_TRUE(Unload("m").ok());
  EXPECT_EQ(Used(), before);
  EXPECT_EQ(server_.Health("nibble.v1.Inference/m"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(server_.Embed(request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Unload("m").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(server_.Health("nibble.v1.Inference"), HealthCheckResponse::SERVING);
}

TEST_F(ModelServiceTest, LoadsAHeadInTheFormAskedForAndTellsIt) {
  v1::LoadOptions options;
  options.set_head(v1::HEAD_FORMAT_NF4);
  v1::EstimateModelResponse sixteen, planned;
  ASSERT_TRUE(Estimate("tiny_chat", &sixteen).ok());
  ASSERT_TRUE(Estimate("tiny_chat", &planned, options).ok());
  EXPECT_EQ(sixteen.model().head(), v1::HEAD_FORMAT_BF16);
  EXPECT_EQ(planned.model().head(), v1::HEAD_FORMAT_NF4);
  EXPECT_LT(planned.total_bytes(), sixteen.total_bytes());
  const int64_t before = Used();
  ASSERT_TRUE(Load("m", "tiny_chat", options).status.ok());
  EXPECT_EQ(Used() - before, planned.total_bytes());
  grpc::ClientContext context;
  v1::GetModelRequest request;
  v1::GetModelResponse response;
  request.set_name("m");
  ASSERT_TRUE(server_.models().GetModel(&context, request, &response).ok());
  EXPECT_EQ(response.model().head(), v1::HEAD_FORMAT_NF4);

  options.set_head(static_cast<v1::HeadFormat>(9));
  const grpc::Status refused = Load("x", "tiny_chat", options).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("options.head: value 9 is not known"));
}

TEST_F(ModelServiceTest, ListsAndDescribesWhatIsLoaded) {
  ASSERT_TRUE(Load("b", "tiny_bert").status.ok());
  grpc::ClientContext list_context, get_context, none_context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(server_.models().ListModels(&list_context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 2);
  EXPECT_EQ(list.models(0).name(), "b");
  EXPECT_EQ(list.models(1).name(), "chat");
  EXPECT_TRUE(list.models(1).can_generate());
  EXPECT_TRUE(list.models(1).has_chat_template());
  EXPECT_EQ(list.models(1).vocabulary(), 467) << "of 512 rows; the rest are padding";
  v1::GetModelRequest request;
  v1::GetModelResponse response;
  request.set_name("chat");
  ASSERT_TRUE(server_.models().GetModel(&get_context, request, &response).ok());
  EXPECT_EQ(response.model().SerializeAsString(), list.models(1).SerializeAsString());
  request.set_name("none");
  EXPECT_EQ(server_.models().GetModel(&none_context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ModelServiceTest, AnEstimateIsExactToTheByte) {
  v1::LoadOptions bf16;
  bf16.set_weights(v1::WEIGHT_FORMAT_BF16);
  for (const char* source : {"tiny_chat", "tiny_bert", "stories260k"}) {
    for (const v1::LoadOptions& options : {v1::LoadOptions(), bf16}) {
      v1::EstimateModelResponse estimate;
      const grpc::Status status = Estimate(source, &estimate, options);
      ASSERT_TRUE(status.ok()) << status.error_message();
      EXPECT_TRUE(estimate.fits());
      const int64_t before = Used();
      EXPECT_EQ(estimate.free_bytes(), (int64_t{1} << 30) - before);
      const Loaded loaded = Load("m", source, options);
      ASSERT_TRUE(loaded.status.ok()) << loaded.status.error_message();
      EXPECT_EQ(Used() - before, estimate.total_bytes()) << source;
      v1::Model wanted = loaded.progress.back().model();
      wanted.clear_name();
      wanted.clear_state();
      EXPECT_EQ(estimate.model().DebugString(), wanted.DebugString());
      ASSERT_TRUE(Unload("m").ok());
    }
  }
}

TEST_F(ModelServiceTest, ANameIsLoadedOnce) {
  ASSERT_TRUE(Load("m", "tiny_bert").status.ok());
  const Loaded again = Load("m", "tiny_bert");
  EXPECT_EQ(again.status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(DetailsOf(again.status).reason, "MODEL_EXISTS");
}

TEST_F(ModelServiceTest, OfTwoLoadsAtOnceOneWins) {
  std::vector<std::thread> clients;
  std::atomic<int> loaded = 0, refused = 0;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      const grpc::Status status = Load("same", "tiny_chat").status;
      if (status.ok()) ++loaded;
      if (status.error_code() == grpc::StatusCode::ALREADY_EXISTS) ++refused;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(loaded, 1);
  EXPECT_EQ(refused, 3);
}

TEST_F(ModelServiceTest, RefusesBadNamesSourcesAndOptions) {
  v1::LoadOptions int8, group, kv;
  int8.set_compute(v1::COMPUTE_INT8);
  group.set_group_size(63);
  kv.set_kv_bytes(int64_t{1} << 40);
  struct Case {
    std::string name, source;
    v1::LoadOptions options;
    grpc::StatusCode code;
  };
  const Case cases[] = {
      {"", "tiny_bert", {}, grpc::StatusCode::INVALID_ARGUMENT},
      {"a b", "tiny_bert", {}, grpc::StatusCode::INVALID_ARGUMENT},
      {"a/b", "tiny_bert", {}, grpc::StatusCode::INVALID_ARGUMENT},
      {std::string(65, 'a'), "tiny_bert", {}, grpc::StatusCode::INVALID_ARGUMENT},
      {"m", "", {}, grpc::StatusCode::INVALID_ARGUMENT},
      {"m", "../models/tiny_bert", {}, grpc::StatusCode::INVALID_ARGUMENT},
      {"m",
       std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/models/tiny_bert",
       {},
       grpc::StatusCode::INVALID_ARGUMENT},
      {"m", "none", {}, grpc::StatusCode::NOT_FOUND},
      {"m", "tiny_bert", int8, grpc::StatusCode::UNIMPLEMENTED},
      {"m", "tiny_bert", group, grpc::StatusCode::INVALID_ARGUMENT},
      {"m", "tiny_chat", kv, grpc::StatusCode::FAILED_PRECONDITION},
  };
  for (const Case& c : cases) {
    const Loaded loaded = Load(c.name, c.source, c.options);
    EXPECT_EQ(loaded.status.error_code(), c.code)
        << c.name << " " << c.source << ": " << loaded.status.error_message();
    if (c.source.front() != '/') {
      EXPECT_THAT(loaded.status.error_message(), Not(HasSubstr(NIBBLE_SOURCE_DIR)));
    }
  }
  EXPECT_TRUE(server_.Serves());
}

TEST_F(ModelServiceTest, WhatDoesNotFitIsRefusedWithTheBreakdown) {
  v1::LoadOptions options;
  options.set_kv_bytes(int64_t{1} << 40);
  const grpc::Status status = Load("m", "tiny_chat", options).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("kv_cache"));
  EXPECT_THAT(status.error_message(), HasSubstr("weights"));
}

TEST_F(ModelServiceTest, ALoadGoesOnWhenItsClientLeaves) {
  v1::LoadModelRequest request;
  request.set_name("m");
  request.set_source("tiny_chat");
  {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "left-1");
    const auto reader = server_.models().LoadModel(&context, request);
    v1::LoadProgress progress;
    reader->Read(&progress);
    context.TryCancel();
    reader->Finish();
  }
  server_.journal().Await("left-1");
  const absl::Time deadline = absl::Now() + kPatience;
  while (server_.Health("nibble.v1.Inference/m") != HealthCheckResponse::SERVING) {
    ASSERT_LT(absl::Now(), deadline);
  }
  EXPECT_TRUE(Unload("m").ok());
}

TEST_F(ModelServiceTest, AnUnloadWaitsForWhatRuns) {
  ASSERT_TRUE(Load("m", "tiny_chat").status.ok());
  grpc::ClientContext context;
  const auto reader = server_.inference().Generate(&context, LongRequest("m", 2));
  Answers answers;
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  answers.Add(message);
  std::thread unloader([&] { EXPECT_TRUE(Unload("m", 60'000).ok()); });
  while (reader->Read(&message)) answers.Add(message);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(answers.by_index.size(), 2u);
  unloader.join();
}

TEST_F(ModelServiceTest, AnUnloadCancelsAtItsDeadline) {
  ASSERT_TRUE(Load("m", "tiny_chat").status.ok());
  grpc::ClientContext context;
  const auto reader = server_.inference().Generate(&context, LongRequest("m", 16));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_TRUE(Unload("m", 0).ok());
  while (reader->Read(&message)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_EQ(DetailsOf(status).reason, "MODEL_UNLOADING");
  EXPECT_TRUE(server_.Serves());
}

TEST_F(ModelServiceTest, ErrorsOfBrokenFilesDoNotTellWhereTheyLie) {
  const TempDir dir;
  dir.Write("broken/config.json", "{");
  dir.Write("empty.gguf", "");
  dir.Write("wrong.gguf", "certainly not a GGUF file");
  RunningServer server([&](ServerOptions* options) {
    options->models.clear();
    options->model_root = dir.path();
  });
  for (const char* source : {"broken", "empty.gguf", "wrong.gguf"}) {
    v1::LoadModelRequest request;
    request.set_name("m");
    request.set_source(source);
    grpc::ClientContext context;
    const auto reader = server.models().LoadModel(&context, request);
    v1::LoadProgress progress;
    while (reader->Read(&progress)) {
    }
    const grpc::Status status = reader->Finish();
    EXPECT_THAT(status.error_code(),
                ::testing::AnyOf(grpc::StatusCode::DATA_LOSS, grpc::StatusCode::INVALID_ARGUMENT,
                                 grpc::StatusCode::UNIMPLEMENTED))
        << source << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), Not(HasSubstr(dir.path())));
    EXPECT_THAT(status.error_details(), Not(HasSubstr(dir.path())));
  }
}

TEST(ModelLoadingOff, IsUnimplementedWithoutAModelRoot) {
  RunningServer server([](ServerOptions* options) { options->models.resize(1); });
  grpc::ClientContext load_context, unload_context, estimate_context;
  v1::LoadModelRequest load;
  load.set_name("m");
  load.set_source("x");
  const auto reader = server.models().LoadModel(&load_context, load);
  v1::LoadProgress progress;
  EXPECT_FALSE(reader->Read(&progress));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNIMPLEMENTED);
  v1::UnloadModelRequest unload;
  unload.set_name("chat");
  v1::UnloadModelResponse unloaded;
  const grpc::Status status = server.models().UnloadModel(&unload_context, unload, &unloaded);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(DetailsOf(status).reason, "MODEL_LOADING_OFF");
  v1::EstimateModelResponse estimate;
  EXPECT_EQ(server.models().EstimateModel(&estimate_context, {}, &estimate).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_TRUE(server.Serves());
}

}  // namespace
}  // namespace nibble
