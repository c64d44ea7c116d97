// `nibble bench serve`: what a running server's clients see: time to first token, gaps, tokens and
// texts per second.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "nibble/v1/inference.grpc.pb.h"
#include "nibble/v1/models.grpc.pb.h"
#include "service/bench.h"
#include "service/bench_report.h"
#include "service/client.h"

namespace nibble {
namespace {

struct BenchServeOptions {
  ClientOptions client;
  std::string model, compare;
  int32_t streams = 32, requests = 64, prompt_tokens = 30, max_tokens = 64, inputs = 16;
  bool embed = false, json = false;
};

struct Observations {
  absl::Mutex mutex;
  std::vector<double> first_ms ABSL_GUARDED_BY(mutex), gap_ms ABSL_GUARDED_BY(mutex),
      whole_ms ABSL_GUARDED_BY(mutex);
  int64_t tokens ABSL_GUARDED_BY(mutex) = 0;
  int64_t failed ABSL_GUARDED_BY(mutex) = 0;
  std::string failure ABSL_GUARDED_BY(mutex);
};

double MillisecondsSince(absl::Time start) {
  return absl::ToDoubleMilliseconds(absl::Now() - start);
}

class ServeBench {
 public:
  ServeBench(const BenchServeOptions& options, std::shared_ptr<grpc::Channel> channel,
             int64_t vocabulary)
      : options_(options), stub_(v1::Inference::NewStub(channel)), vocabulary_(vocabulary) {}

  void Run(BenchReport* report) {
    const absl::Time start = absl::Now();
    std::vector<std::thread> threads;
    for (int i = 0; i < options_.streams; ++i) {
      threads.emplace_back([this, i] {
        std::mt19937 random(static_cast<uint32_t>(i + 1));
        while (next_.fetch_add(1) < options_.requests)
          options_.embed ? Embed(&random) : Generate(&random);
      });
    }
    for (std::thread& thread : threads) thread.join();
    Report(absl::ToDoubleSeconds(absl::Now() - start), report);
  }

  int64_t failed() {
    absl::MutexLock lock(&seen_.mutex);
    return seen_.failed;
  }
  std::string failure() {
    absl::MutexLock lock(&seen_.mutex);
    return seen_.failure;
  }

 private:
  void FillTokens(std::mt19937* random, v1::TokenIds* ids) const {
    std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(vocabulary_) - 1);
    for (int i = 0; i < options_.prompt_tokens; ++i) ids->add_ids(token(*random));
  }

  void Fail(const grpc::Status& status) {
    absl::MutexLock lock(&seen_.mutex);
    ++seen_.failed;
    seen_.failure = status.error_message();
  }

  void Generate(std::mt19937* random) {
    v1::GenerateRequest request;
    request.set_model(options_.model);
    FillTokens(random, request.mutable_token_ids());
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_tokens(options_.max_tokens);
    request.mutable_stopping()->set_ignore_eos(true);
    request.mutable_output()->set_token_ids(true);
    grpc::ClientContext context;
    if (!Prepare(options_.client, &context).ok()) return;
    const absl::Time start = absl::Now();
    const auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    std::vector<double> gaps;
    double first = -1;
    int64_t tokens = 0;
    absl::Time last = start;
    while (reader->Read(&response)) {
      if (response.token_ids().empty()) continue;
      const absl::Time now = absl::Now();
      if (first < 0) {
        first = MillisecondsSince(start);
      } else {
        gaps.push_back(absl::ToDoubleMilliseconds(now - last) / response.token_ids_size());
      }
      last = now;
      tokens += response.token_ids_size();
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return Fail(status);
    absl::MutexLock lock(&seen_.mutex);
    seen_.first_ms.push_back(first);
    seen_.gap_ms.insert(seen_.gap_ms.end(), gaps.begin(), gaps.end());
    seen_.whole_ms.push_back(MillisecondsSince(start));
    seen_.tokens += tokens;
  }

  void Embed(std::mt19937* random) {
    v1::EmbedRequest request;
    request.set_model(options_.model);
    for (int i = 0; i < options_.inputs; ++i)
      FillTokens(random, request.add_inputs()->mutable_token_ids());
    grpc::ClientContext context;
    if (!Prepare(options_.client, &context).ok()) return;
    const absl::Time start = absl::Now();
    v1::EmbedResponse response;
    const grpc::Status status = stub_->Embed(&context, request, &response);
    if (!status.ok()) return Fail(status);
    absl::MutexLock lock(&seen_.mutex);
    seen_.whole_ms.push_back(MillisecondsSince(start));
    seen_.tokens += response.usage().prompt_tokens();
  }

  void Report(double seconds, BenchReport* report) {
    absl::MutexLock lock(&seen_.mutex);
    report->Add("streams", options_.streams);
    report->Add("requests", static_cast<double>(seen_.whole_ms.size()));
    report->Add("failed", static_cast<double>(seen_.failed));
    report->Add("tokens_per_second", static_cast<double>(seen_.tokens) / seconds);
    if (options_.embed) {
      report->Add("texts_per_second",
                  static_cast<double>(seen_.whole_ms.size()) * options_.inputs / seconds);
    }
    const std::pair<const char*, const std::vector<double>*> kinds[] = {
        {"time_to_first_token", &seen_.first_ms},
        {"inter_token", &seen_.gap_ms},
        {"request", &seen_.whole_ms}};
    for (const auto& [name, values] : kinds) {
      if (values->empty()) continue;
      for (const int percent : {50, 90, 99}) {
        report->Add(absl::StrCat(name, "_p", percent, "_ms"), Quantile(*values, percent / 100.0));
      }
    }
  }

  const BenchServeOptions& options_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
  const int64_t vocabulary_;
  std::atomic<int> next_{0};
  Observations seen_;
};

// The model's vocabulary and, when none was named, the only model that can do it.
grpc::Status FindModel(BenchServeOptions* options, const std::shared_ptr<grpc::Channel>& channel,
                       int64_t* vocabulary) {
  grpc::ClientContext context;
  if (!Prepare(options->client, &context).ok()) {
    return {grpc::StatusCode::NOT_FOUND, "cannot read --token-file"};
  }
  v1::ListModelsResponse response;
  const grpc::Status status =
      v1::Models::NewStub(channel)->ListModels(&context, v1::ListModelsRequest(), &response);
  if (!status.ok()) return status;
  for (const v1::Model& model : response.models()) {
    const bool able = options->embed ? model.can_embed() : model.can_generate();
    if (!able || (!options->model.empty() && options->model != model.name())) continue;
    options->model = model.name();
    *vocabulary = model.vocabulary();
    return grpc::Status::OK;
  }
  return {grpc::StatusCode::NOT_FOUND,
          absl::StrCat("no model \"", options->model, "\" that can do this")};
}

}  // namespace

int RunBenchServe(const Arguments& args) {
  BenchServeOptions options;
  Flags flags("nibble bench serve [flags]",
              "Sends random prompts to a running server from many streams at once and reports what "
              "they saw.");
  flags.Group("Load");
  flags.Add("model", &options.model, "NAME", "Which model; empty: the first that can do it.");
  flags.Add("streams", &options.streams, "N", "Requests in flight at once.");
  flags.Add("requests", &options.requests, "N", "Requests in all.");
  flags.Add("prompt-tokens", &options.prompt_tokens, "N", "Tokens of each prompt or input.");
  flags.Add("max-tokens", &options.max_tokens, "N", "Tokens of each answer.");
  flags.Add("embed", &options.embed, "Send Embed calls instead of Generate.");
  flags.Add("inputs", &options.inputs, "N", "With --embed: inputs of each call.");
  flags.Add("json", &options.json, "One JSON object.");
  flags.Add("compare", &options.compare, "FILE",
            "An earlier --json output to show ratios against.");
  AddClientFlags(&flags, &options.client);
  int code = 0;
  if (!ParseOrExplain("bench serve", &flags, args, &code)) return code;
  if (options.streams < 1 || options.streams > 4096 || options.requests < 1 ||
      options.prompt_tokens < 1) {
    std::fprintf(stderr,
                 "nibble bench serve: --streams must be 1 to 4096, --requests and --prompt-tokens "
                 "at least 1\n");
    return 2;
  }
  const auto channel = Connect(options.client);
  if (!channel.ok()) return ReportFailure("bench serve", channel.status());
  int64_t vocabulary = 0;
  const grpc::Status found = FindModel(&options, *channel, &vocabulary);
  if (!found.ok()) return ReportFailure("bench serve", found);
  ServeBench bench(options, *channel, vocabulary);
  BenchReport report;
  bench.Run(&report);
  const absl::Status printed = report.Print(options.json, options.compare);
  if (!printed.ok()) return ReportFailure("bench serve", printed);
  if (bench.failed() == 0) return 0;
  std::fprintf(stderr, "nibble bench serve: %lld requests failed, the last with: %s\n",
               static_cast<long long>(bench.failed()), bench.failure().c_str());
  return 1;
}

}  // namespace nibble
