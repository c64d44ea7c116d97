// Starting, refusing to start, health, drain, authorization, TLS, and a flood of connections.
#include "service/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "engine/fd.h"
#include "engine/status.h"
#include "tests/support/certificates.h"
#include "tests/support/running_server.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using grpc::health::v1::HealthCheckResponse;
using testing::Answers;
using testing::Certificate;
using testing::DetailsOf;
using ::testing::HasSubstr;
using testing::kPatience;
using testing::LongRequest;
using testing::RunningServer;
using testing::SelfSigned;
using testing::TempDir;

// --- starting ---

absl::Status StartWith(const RunningServer::Change& change) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.engine.backend.num_threads = 1;
  options.engine.memory_bytes = 1 << 28;
  change(&options);
  return Server::Start(std::move(options)).status();
}

TEST(ServerStart, SaysThatThePortIsInUse) {
  RunningServer first([](ServerOptions* options) { options->models.clear(); });
  const absl::Status status =
      StartWith([&](ServerOptions* options) { options->listen = first->address(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), "PORT_IN_USE");
  EXPECT_THAT(std::string(status.message()), HasSubstr(first->address()));
}

TEST(ServerStart, RefusesToBeReachableInClearUnlessToldSo) {
  const auto open = [](bool insecure, const std::string& tokens) {
    return StartWith([&](ServerOptions* options) {
      options->listen = "0.0.0.0:0";
      options->insecure = insecure;
      options->auth_token_file = tokens;
    });
  };
  const TempDir dir;
  const std::string tokens = dir.Write("tokens", "a-token-of-some-length\n");
  EXPECT_EQ(open(false, "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(open(false, "").message()), HasSubstr("--insecure"));
  EXPECT_TRUE(open(true, "").ok());
  EXPECT_EQ(open(true, tokens).code(), absl::StatusCode::kInvalidArgument)
      << "tokens would travel in clear";
}

TEST(ServerStart, RefusesBadFilesAndOptions) {
  const TempDir dir;
  const Certificate one = SelfSigned(), other = SelfSigned(), old = SelfSigned(-60);
  const std::string cert = dir.Write("cert", one.pem), key = dir.Write("key", one.key_pem);
  const std::string other_key = dir.Write("other_key", other.key_pem);
  const std::string old_cert = dir.Write("old", old.pem), old_key = dir.Write("ok", old.key_pem);
  const std::string garbage = dir.Write("garbage", "not PEM");
  struct Case {
    const char* name;
    RunningServer::Change change;
    absl::StatusCode code;
  };
  const auto tls = [](const std::string& c, const std::string& k, const std::string& ca) {
    return [=](ServerOptions* options) { options->tls = {c, k, ca}; };
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const Case cases[] = {
      {"cert without key", tls(cert, "", ""), kInvalid},
      {"key without cert", tls("", key, ""), kInvalid},
      {"clients' roots alone", tls("", "", cert), kInvalid},
      {"not a pair", tls(cert, other_key, ""), kInvalid},
      {"garbage cert", tls(garbage, key, ""), kInvalid},
      {"garbage key", tls(cert, garbage, ""), kInvalid},
      {"garbage roots", tls(cert, key, garbage), kInvalid},
      {"expired", tls(old_cert, old_key, ""), kInvalid},
      {"no such cert", tls(dir.File("none"), key, ""), absl::StatusCode::kNotFound},
      {"no such tokens", [&](auto* o) { o->auth_token_file = dir.File("none"); },
       absl::StatusCode::kNotFound},
      {"no such root", [&](auto* o) { o->model_root = dir.File("none"); },
       absl::StatusCode::kNotFound},
      {"bad address", [](auto* o) { o->listen = "localhost"; }, kInvalid},
      {"bad health address", [](auto* o) { o->health_listen = "x"; }, kInvalid},
      {"no encoder", [](auto* o) { o->encode_threads = 0; }, kInvalid},
      {"no message", [](auto* o) { o->max_receive_message_bytes = 0; }, kInvalid},
      {"no time", [](auto* o) { o->send_stall_timeout = absl::ZeroDuration(); }, kInvalid},
      {"bad device", [](auto* o) { o->engine.backend.device = "abacus"; }, kInvalid},
  };
  for (const Case& c : cases) EXPECT_EQ(StartWith(c.change).code(), c.code) << c.name;
}

TEST(ServerStart, AModelThatFailsToLoadIsTold) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.engine.backend.num_threads = 1;
  options.engine.memory_bytes = 1 << 28;
  options.models = {testing::Load("m", "no_such_model")};
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(std::move(options));
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->LoadModels().code(), absl::StatusCode::kNotFound);
}

// --- health ---

TEST(ServerHealth, KnowsTheProcessTheServiceAndEveryModel) {
  RunningServer server;
  EXPECT_EQ(server.Health(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(server.Health("nibble.v1.Inference"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server.Health("nibble.v1.Inference/chat"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server.Health("nibble.v1.Inference/bert"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server.Health("nibble.v1.Inference/none"), HealthCheckResponse::UNKNOWN);
}

TEST(ServerHealth, AHealthOnlyListenerSaysTheSameAndNothingElse) {
  RunningServer server([](ServerOptions* options) { options->health_listen = "127.0.0.1:0"; });
  const auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server->health_port()),
                                           grpc::InsecureChannelCredentials());
  grpc::ClientContext context, other_context;
  grpc::health::v1::HealthCheckRequest request;
  HealthCheckResponse response;
  request.set_service("nibble.v1.Inference/chat");
  EXPECT_TRUE(grpc::health::v1::Health::NewStub(channel)->Check(&context, request, &response).ok());
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  v1::GetServerInfoResponse info;
  EXPECT_EQ(v1::Control::NewStub(channel)->GetServerInfo(&other_context, {}, &info).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

// --- drain ---

TEST(ServerDrain, TellsWatchersAtOnceAndFinishesWhatRuns) {
  RunningServer server;
  grpc::ClientContext watch_context;
  grpc::health::v1::HealthCheckRequest watched;
  watched.set_service("nibble.v1.Inference");
  const auto watcher = server.health().Watch(&watch_context, watched);
  HealthCheckResponse health;
  ASSERT_TRUE(watcher->Read(&health));
  EXPECT_EQ(health.status(), HealthCheckResponse::SERVING);

  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, LongRequest("chat", 4));
  Answers answers;
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  answers.Add(message);
  const absl::Time begin = absl::Now();
  server->BeginDrain();
  ASSERT_TRUE(watcher->Read(&health));
  EXPECT_EQ(health.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_LT(absl::Now() - begin, absl::Milliseconds(100));
  EXPECT_TRUE(server->draining());

  v1::GenerateRequest late;
  late.set_model("chat");
  late.set_text("Once");
  const grpc::Status refused = server.Generate(late).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(refused).reason, "DRAINING");

  std::thread waiter([&] { EXPECT_TRUE(server->Wait().ok()); });
  while (reader->Read(&message)) answers.Add(message);
  EXPECT_TRUE(reader->Finish().ok()) << "what ran was finished";
  ASSERT_EQ(answers.by_index.size(), 4u);
  for (const auto& [index, answer] : answers.by_index) {
    EXPECT_EQ(answer.num_ends, 1);
    EXPECT_EQ(answer.last.finish_reason(), v1::FINISH_REASON_LENGTH);
  }
  waiter.join();
  EXPECT_TRUE(server.journal().AwaitEvent(ServerEvent::Kind::kStopped));
  EXPECT_FALSE(watcher->Read(&health));
}

TEST(ServerDrain, CancelsAtItsTimeoutWhatStillRuns) {
  RunningServer server;
  grpc::ClientContext context;
  const auto reader = server.inference().Generate(&context, LongRequest("chat", 16));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server->BeginDrain(absl::ZeroDuration());
  EXPECT_TRUE(server->Wait().ok());
  while (reader->Read(&message)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
}

TEST(ServerDrain, ByRpcAnswersAndThenTheServerEnds) {
  RunningServer server;
  grpc::ClientContext bad_context, context;
  v1::DrainRequest request;
  v1::DrainResponse response;
  request.set_timeout_ms(-1);
  EXPECT_EQ(server.control().Drain(&bad_context, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_FALSE(server->draining());
  request.set_timeout_ms(5000);
  EXPECT_TRUE(server.control().Drain(&context, request, &response).ok());
  EXPECT_EQ(response.requests(), 0);
  EXPECT_TRUE(server->Wait().ok());
}

TEST(ServerDrain, AnIdleServerEndsAtOnceEvenIfItIsNeverAsked) {
  const absl::Time begin = absl::Now();
  { RunningServer server; }
  EXPECT_LT(absl::Now() - begin, kPatience / 2);
}

// --- control ---

TEST(ServerControl, TellsWhatItIsAndWhatItAllows) {
  RunningServer server([](ServerOptions* options) {
    options->engine.caps.max_n = 3;
    options->max_receive_message_bytes = 12345;
  });
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(server.control().GetServerInfo(&context, {}, &info).ok());
  EXPECT_NE(info.version(), "");
  EXPECT_EQ(info.device(), "cpu");
  EXPECT_NE(info.isa(), "");
  EXPECT_EQ(info.num_threads(), 1);
  EXPECT_EQ(info.memory_budget_bytes(), int64_t{1} << 30);
  EXPECT_GT(info.uptime_ms(), 0);
  EXPECT_FALSE(info.draining());
  EXPECT_FALSE(info.model_loading());
  EXPECT_EQ(info.caps().max_n(), 3);
  EXPECT_EQ(info.limits().max_receive_message_bytes(), 12345);
  EXPECT_EQ(info.limits().send_stall_timeout_ms(), 30'000);
}

TEST(ServerControl, MemoryIsByModelAndKind) {
  RunningServer server;
  grpc::ClientContext context;
  v1::GetMemoryResponse memory;
  ASSERT_TRUE(server.control().GetMemory(&context, {}, &memory).ok());
  ASSERT_EQ(memory.devices_size(), 1);
  EXPECT_EQ(memory.devices(0).budget_bytes(), int64_t{1} << 30);
  std::map<std::string, int64_t> by_model;
  int64_t sum = 0;
  for (const v1::MemoryEntry& entry : memory.devices(0).entries()) {
    EXPECT_GT(entry.bytes(), 0);
    by_model[entry.model()] += entry.bytes();
    sum += entry.bytes();
  }
  EXPECT_EQ(memory.devices(0).used_bytes(), sum);
  for (const ModelDescription& model : server->engine().ListModels()) {
    EXPECT_EQ(by_model[model.name], model.memory.Total()) << model.name;
  }
  EXPECT_GT(memory.process().anonymous_bytes(), 0);
}

// --- reflection ---

bool Reflects(RunningServer& server) {
  grpc::ClientContext context;
  const grpc::internal::RpcMethod method(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      grpc::internal::RpcMethod::BIDI_STREAMING);
  const std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
      grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
          server.channel().get(), method, &context));
  grpc::Slice list_services("\x3A\x01*");
  stream->Write(grpc::ByteBuffer(&list_services, 1));
  grpc::ByteBuffer answer;
  const bool answered = stream->Read(&answer);
  std::vector<grpc::Slice> slices;
  std::string text;
  if (answered && answer.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    EXPECT_THAT(text, HasSubstr("nibble.v1.Inference"));
  }
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), answered ? grpc::StatusCode::OK : grpc::StatusCode::UNIMPLEMENTED);
  return answered;
}

TEST(ServerReflection, IsOnOnLoopbackAndOffWhenToldSo) {
  RunningServer on([](ServerOptions* options) { options->models.clear(); });
  EXPECT_TRUE(Reflects(on));
  RunningServer off([](ServerOptions* options) {
    options->models.clear();
    options->reflection = false;
  });
  EXPECT_FALSE(Reflects(off));
}

// --- authorization ---

TEST(ServerAuthorization, EveryServiceButHealthWantsATokenOfTheRightRole) {
  const TempDir dir;
  const std::string tokens = dir.Write("tokens",
                                       "inference-token-0123\nadmin-token-01234567 admin\n"
                                       "observe-token-012345 observe\n");
  RunningServer server([&](ServerOptions* options) {
    options->auth_token_file = tokens;
    options->models.resize(1);
  });
  const auto generate = [&](const std::string& token) {
    grpc::ClientContext context;
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    v1::GenerateRequest request;
    request.set_text("Once");
    request.mutable_stopping()->set_max_tokens(1);
    return server.Generate(request, &context).status;
  };
  const auto info = [&](const std::string& token) {
    grpc::ClientContext context;
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    v1::GetServerInfoResponse response;
    return server.control().GetServerInfo(&context, {}, &response);
  };
  const auto drain = [&](const std::string& token) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + token);
    v1::DrainResponse response;
    return server.control().Drain(&context, {}, &response);
  };
  EXPECT_EQ(generate("").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(DetailsOf(generate("")).reason, "TOKEN_MISSING");
  EXPECT_EQ(generate("wrong-token-01234567").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(generate("observe-token-012345").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(generate("inference-token-0123").ok());
  EXPECT_TRUE(generate("admin-token-01234567").ok());
  EXPECT_EQ(info("").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(info("observe-token-012345").ok());
  EXPECT_EQ(server.Health(""), HealthCheckResponse::SERVING) << "probes have no token";
  EXPECT_EQ(drain("inference-token-0123").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_FALSE(server->draining());
  EXPECT_TRUE(drain("admin-token-01234567").ok());
  EXPECT_TRUE(server->draining());
}

// --- TLS ---

std::shared_ptr<grpc::ChannelCredentials> ClientTls(const std::string& roots,
                                                    const Certificate& own = {}) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = roots;
  options.pem_cert_chain = own.pem;
  options.pem_private_key = own.key_pem;
  return grpc::SslCredentials(options);
}

grpc::Status InfoOver(const RunningServer& server,
                      const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::GetServerInfoResponse response;
  return v1::Control::NewStub(server.NewChannel(credentials))
      ->GetServerInfo(&context, {}, &response);
}

TEST(ServerTls, SpeaksItAndNothingElse) {
  const TempDir dir;
  const Certificate own = SelfSigned();
  const std::string cert = dir.Write("cert", own.pem), key = dir.Write("key", own.key_pem);
  RunningServer server([&](ServerOptions* options) {
    options->models.clear();
    options->tls = {cert, key, ""};
  });
  const grpc::Status status = InfoOver(server, ClientTls(own.pem));
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(InfoOver(server, ClientTls(SelfSigned().pem)).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(InfoOver(server, grpc::InsecureChannelCredentials()).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST(ServerTls, WantsTheClientsCertificateWhenToldSo) {
  const TempDir dir;
  const Certificate own = SelfSigned(), client = SelfSigned();
  const std::string cert = dir.Write("cert", own.pem), key = dir.Write("key", own.key_pem);
  const std::string roots = dir.Write("roots", client.pem);
  RunningServer server([&](ServerOptions* options) {
    options->models.clear();
    options->tls = {cert, key, roots};
  });
  const grpc::Status status = InfoOver(server, ClientTls(own.pem, client));
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(InfoOver(server, ClientTls(own.pem)).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(InfoOver(server, ClientTls(own.pem, SelfSigned())).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

// --- a flood ---

class FileLimit {
 public:
  explicit FileLimit(rlim_t now) {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = now;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~FileLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_;
};

TEST(ServerFlood, AnswersAgainAsSoonAsFileDescriptorsAreFree) {
  RunningServer server([](ServerOptions* options) { options->models.resize(1); });
  ASSERT_TRUE(server.Serves());
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  {
    std::vector<Fd> clients;
    for (int i = 0; i < 120; ++i) {
      clients.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    }
    const int next = Fd(open("/dev/null", O_RDONLY | O_CLOEXEC)).get();
    const FileLimit limit(static_cast<rlim_t>(next) + 16);  // room for a few of the 120
    for (const Fd& client : clients) {
      ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    }
    ASSERT_TRUE(server.journal().AwaitEvent(ServerEvent::Kind::kAcceptFailed));
    EXPECT_TRUE(server.Serves()) << "on the connection that it has";
  }
  const auto channel = server.NewChannel(grpc::InsecureChannelCredentials());
  EXPECT_TRUE(channel->WaitForConnected(absl::ToChronoTime(absl::Now() + kPatience)))
      << "a listener that lives";
  EXPECT_TRUE(InfoOver(server, grpc::InsecureChannelCredentials()).ok());
}

}  // namespace
}  // namespace nibble
