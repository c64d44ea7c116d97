// `nibble serve`: flags to ServerOptions, signals to a drain, events to logs and metrics.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "service/client.h"
#include "service/commands.h"
#include "service/log.h"
#include "service/metrics.h"
#include "service/model_spec.h"
#include "service/progress.h"
#include "service/server.h"

namespace nibble {
namespace {

struct ServeFlags {
  ServerOptions server;
  std::vector<std::string> models;
  std::string metrics = "127.0.0.1:9464";
  std::string compute = "auto";
  int64_t max_context = 0;
  std::string config;
  std::string log_level = "info";
};

void AddModelGroup(Flags* flags, ServeFlags* out) {
  EngineOptions* engine = &out->server.engine;
  flags->Group("Models");
  flags->AddList("model", &out->models, "NAME=PATH[,OPTION=VALUE...]",
                 "Load PATH (a Hugging Face directory or a .gguf file) as NAME. Options: weights "
                 "(nf4, fp4, int8, bf16), head (nf4, int8, bf16), group_size, double_quant, "
                 "skip_modules, kv_dtype (fp16, bf16, fp32), max_context, kv_bytes.");
  flags->Add("model-root", &out->server.model_root, "DIR",
             "Allow LoadModel, UnloadModel and EstimateModel for paths under DIR; empty: off.");
  flags->Add(
      "max-context", &out->max_context, "TOKENS",
      "Longest prompt and answer together, of every model that does not say; 0: the model's own.");
  flags->Add("max-output-tokens", &engine->caps.max_output_tokens, "TOKENS",
             "Longest answer; 0: the context.");
}

void AddListenGroup(Flags* flags, ServeFlags* out) {
  ServerOptions* server = &out->server;
  flags->Group("Listening");
  flags->Add("listen", &server->listen, "HOST:PORT", "Where to answer gRPC.");
  flags->Add("metrics", &out->metrics, "HOST:PORT",
             "Where to answer GET /metrics (plain HTTP); empty: nowhere.");
  flags->Add(
      "health-listen", &server->health_listen, "HOST:PORT",
      "A second, plaintext listener with the health service only, for probes when TLS is on; "
      "empty: none.");
  flags->Add("insecure", &server->insecure,
             "Listen beyond loopback without TLS; for use behind a mesh or ingress.");
  flags->Add("tls-cert", &server->tls.cert, "FILE", "Certificate chain (PEM); turns TLS on.");
  flags->Add("tls-key", &server->tls.key, "FILE", "Its private key (PEM).");
  flags->Add("tls-client-ca", &server->tls.client_ca, "FILE",
             "Every client must show a certificate that descends from these (PEM).");
  flags->Add("auth-token-file", &server->auth_token_file, "FILE",
             "Bearer tokens, one per line with an optional role; empty: no authorization.");
  flags->Add("reflection", &server->reflection,
             "Answer gRPC reflection. Default: on loopback only.");
}

void AddMachineGroup(Flags* flags, ServeFlags* out) {
  EngineOptions* engine = &out->server.engine;
  flags->Group("Machine");
  flags->Add("device", &engine->backend.device, "auto|cpu|cuda:0", "Where to compute.");
  flags->AddBytes(
      "memory", &engine->memory_bytes,
      "Most that models may hold; 0: on a GPU 90 % of what is free at the start, else 80 % of "
      "the cgroup's limit, or of RAM.");
  flags->Add("threads", &engine->backend.num_threads, "N",
             "CPU threads that compute; 0: the cgroup's quota, or all CPUs.");
  flags->Add("cpu-isa", &engine->backend.cpu_isa,
             "scalar|avx2|avx2_vnni|avx512|avx512_vnni|avx512_bf16|amx",
             "Force one row of the instruction-set table; empty: the best the CPU has.");
  flags->AddChoice(
      "compute", &out->compute, {"auto", "fp32", "bf16", "int8"},
      "Arithmetic of products; auto: bf16 on a GPU, with AMX, on AMD with AVX512_BF16, "
      "else fp32. int8, on a CPU: 4-bit weights times activations in bytes.");
  flags->Add("batch-invariant", &engine->backend.batch_invariant,
             "On a GPU: multiply one way whatever the number of rows, so that an answer does not "
             "depend on its neighbours to the last bit. A CPU always does.");
}

void AddLimitGroup(Flags* flags, ServeFlags* out) {
  ServerOptions* server = &out->server;
  EngineOptions* engine = &server->engine;
  flags->Group("Limits");
  flags->Add("step-budget-ms", &engine->step_budget_ms, "MS",
             "No engine step is planned to take longer, or than two steps of one token.");
  flags->Add("max-step-rows", &engine->limits.max_rows, "TOKENS",
             "Most tokens computed in one step.");
  flags->Add("max-running", &engine->limits.max_sequences, "N", "Most answers in one step.");
  flags->Add("max-queued-requests", &engine->max_queued_requests, "N",
             "Requests of one model that may wait; over: RESOURCE_EXHAUSTED.");
  flags->Add("max-queued-tokens", &engine->max_queued_tokens, "TOKENS",
             "Prompt tokens that may wait.");
  flags->Add("max-n", &engine->caps.max_n, "N", "Most answers of one request.");
  flags->Add("max-stop-strings", &engine->caps.max_stop_strings, "N",
             "Most stop strings of one request.");
  flags->Add("max-logprobs", &engine->caps.max_logprobs, "N", "Most logprobs per token.");
  flags->Add("max-inputs", &engine->caps.max_inputs, "N",
             "Most inputs of one Embed or Tokenize call.");
  flags->AddBytes("max-prompt-bytes", &engine->caps.max_prompt_bytes,
                  "Largest prompt of one request.");
  flags->AddBytes("max-receive-message-bytes", &server->max_receive_message_bytes,
                  "Largest request on the wire.");
  flags->Add("max-connections", &server->max_connections, "N", "Most connections at once.");
  flags->Add("max-concurrent-streams", &server->max_concurrent_streams, "N",
             "Most calls of one connection.");
  flags->Add("encode-threads", &server->encode_threads, "N", "Threads that encode prompts.");
}

void AddTimeGroup(Flags* flags, ServeFlags* out) {
  ServerOptions* server = &out->server;
  flags->Group("Time");
  flags->Add("drain-timeout", &server->drain_timeout,
             "After SIGTERM or Drain: how long what runs may still take.");
  flags->Add("send-stall-timeout", &server->send_stall_timeout,
             "A stream that its client does not read for so long is aborted.");
  flags->Add("watchdog-timeout", &server->watchdog_timeout,
             "An engine without a finished step for so long is NOT_SERVING.");
  flags->Add("keepalive-time", &server->keepalive_time, "Ping idle connections this often.");
  flags->Add("keepalive-timeout", &server->keepalive_timeout,
             "Drop a connection whose ping is unanswered.");
  flags->Add("max-connection-age", &server->max_connection_age,
             "Ask clients to reconnect after this long.");
  flags->Group("Other");
  flags->AddChoice("log-level", &out->log_level, {"debug", "info", "warning", "error"},
                   "Least level that is logged (JSON lines on stderr).");
  flags->Add("config", &out->config, "FILE",
             "Read flags from a file of \"name = value\" lines first.");
}

// What the flags mean together. Errors: INVALID_ARGUMENT.
absl::Status Finish(ServeFlags* out) {
  out->server.engine.backend.compute = ComputeNamed(out->compute).value();
  for (const std::string& spec : out->models) {
    absl::StatusOr<LoadRequest> model = ParseModelSpec(spec);
    if (!model.ok()) return model.status();
    if (model->options.max_context == 0) model->options.max_context = out->max_context;
    out->server.models.push_back(*std::move(model));
  }
  if (out->server.models.empty() && out->server.model_root.empty()) {
    return absl::InvalidArgumentError(
        "nothing to serve: give --model NAME=PATH, or --model-root DIR");
  }
  return absl::OkStatus();
}

void LogRequest(Log* log, const RequestRecord& record) {
  JsonLine line;
  line.Add("request_id", record.request_id);
  line.Add("op", record.op);
  if (!record.model.empty()) line.Add("model", record.model);
  line.Add("code", CodeName(record.code));
  if (!record.reason.empty()) line.Add("reason", record.reason);
  if (!record.message.empty()) line.Add("message", record.message);
  if (!record.tenant.empty()) line.Add("tenant", record.tenant);
  if (!record.traceparent.empty()) line.Add("traceparent", record.traceparent);
  line.Add("duration_ms", absl::ToDoubleMilliseconds(record.duration));
  line.Add("prompt_tokens", record.prompt_tokens);
  line.Add("completion_tokens", record.completion_tokens);
  line.Add("queue_ms", record.queue_ms);
  line.Add("time_to_first_token_ms", record.time_to_first_token_ms);
  const bool ours =
      record.code == absl::StatusCode::kInternal || record.code == absl::StatusCode::kDataLoss;
  log->Write(ours ? LogLevel::kError : LogLevel::kInfo, "request", line);
}

void LogEvent(Log* log, const ServerEvent& event) {
  JsonLine line;
  if (!event.model.empty()) line.Add("model", event.model);
  if (!event.message.empty()) line.Add("message", event.message);
  if (!event.status.ok()) line.Add("status", event.status.ToString());
  if (event.duration > absl::ZeroDuration()) {
    line.Add("duration_ms", absl::ToDoubleMilliseconds(event.duration));
  }
  const bool bad = event.kind == ServerEvent::Kind::kLoadFailed ||
                   event.kind == ServerEvent::Kind::kStalled ||
                   event.kind == ServerEvent::Kind::kDeviceLost ||
                   event.kind == ServerEvent::Kind::kAcceptFailed;
  log->Write(bad ? LogLevel::kError : LogLevel::kInfo, Name(event.kind), line);
}

LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

// Blocks SIGTERM and SIGINT in every thread that starts from now on; one thread waits for them.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

// The first signal drains, the second leaves at once. Sleeps in the kernel until one comes; ends
// with the process.
void WatchSignals(sigset_t signals, Server* server) {
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  server->BeginDrain();
  sigwait(&signals, &signal_number);
  std::_Exit(1);
}

int Serve(ServeFlags flags) {
  const sigset_t signals = BlockSignals();
  Log log(stderr, LevelOf(flags.log_level));
  auto metrics = std::make_shared<Metrics>();
  flags.server.observer.on_request = [&log, metrics](const RequestRecord& record) {
    metrics->Count(record);
    LogRequest(&log, record);
  };
  flags.server.observer.on_event = [&log](const ServerEvent& event) { LogEvent(&log, event); };
  std::map<std::string, std::unique_ptr<Progress>> bars;
  flags.server.on_load_progress = [&bars](const std::string& model, const LoadProgress& progress) {
    std::unique_ptr<Progress>& bar = bars[model];
    if (bar == nullptr) {
      bar = std::make_unique<Progress>(absl::StrCat("loading ", model), stderr, isatty(2) == 1);
    }
    bar->Update(progress.done_bytes, progress.total_bytes, absl::Now());
    if (progress.stage == "ready") bars.erase(model);
  };
  const std::string metrics_address = flags.metrics;
  auto server = Server::Start(std::move(flags.server));
  if (!server.ok()) return ReportFailure("serve", server.status());
  metrics->Attach(&(*server)->engine());
  std::unique_ptr<MetricsEndpoint> endpoint;
  if (!metrics_address.empty()) {
    auto started = MetricsEndpoint::Start(metrics_address, metrics);
    if (!started.ok()) return ReportFailure("serve", started.status());
    endpoint = *std::move(started);
  }
  std::thread(WatchSignals, signals, server->get()).detach();
  const absl::Status loaded = (*server)->LoadModels();
  if (!loaded.ok() && !(*server)->draining()) {
    log.Flush();
    return ReportFailure("serve", loaded);
  }
  const absl::Status stopped = (*server)->Wait();
  log.Flush();
  if (!stopped.ok()) ReportFailure("serve", stopped);
  // Nothing runs any more. To end the metrics endpoint in order would take its library's poll of
  // two seconds.
  std::_Exit(stopped.ok() ? 0 : 1);
}

}  // namespace

int RunServe(const Arguments& args) {
  ServeFlags options;
  Flags flags(
      "nibble serve --model NAME=PATH [flags]",
      "Loads models and answers Generate and Embed over gRPC until SIGTERM, then finishes what "
      "runs and exits with 0.");
  AddModelGroup(&flags, &options);
  AddListenGroup(&flags, &options);
  AddMachineGroup(&flags, &options);
  AddLimitGroup(&flags, &options);
  AddTimeGroup(&flags, &options);
  int code = 0;
  if (!ParseOrExplain("serve", &flags, args, &code)) return code;
  absl::Status status;
  if (!options.config.empty()) {
    // The file first, then the command line again: what is typed wins. Lists add up.
    options.models.clear();
    status = flags.ReadFile(options.config);
    if (status.ok()) status = flags.Parse(args);
  }
  if (status.ok()) status = Finish(&options);
  if (!status.ok()) {
    std::fprintf(stderr, "nibble serve: %s\n(nibble serve --help tells the flags)\n",
                 std::string{status.message()}.c_str());
    return 2;
  }
  return Serve(std::move(options));
}

}  // namespace nibble
