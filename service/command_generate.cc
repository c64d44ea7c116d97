// `nibble generate`: one prompt to a running server, the answer to stdout as it comes.
#include <cstdio>
#include <string>

#include "nibble/v1/inference.grpc.pb.h"
#include "service/client.h"
#include "service/commands.h"
#include "service/json_line.h"

namespace nibble {
namespace {

struct GenerateOptions {
  ClientOptions client;
  std::string model, prompt;
  bool chat = false, json = false;
  std::string system;
  int64_t max_tokens = 0;
  double temperature = -1, top_p = -1;
  int64_t top_k = -1, seed = -1;
  std::vector<std::string> stop;
};

void AddFlags(Flags* flags, GenerateOptions* options) {
  flags->Group("Request");
  flags->Add("model", &options->model, "NAME", "Which model; empty: the only generative one.");
  flags->Add("prompt", &options->prompt, "TEXT", "What to continue, or with --chat, to answer.");
  flags->Add("chat", &options->chat,
             "Send the prompt as a user's message through the chat template.");
  flags->Add("system", &options->system, "TEXT", "With --chat: a system message before it.");
  flags->Add("max-tokens", &options->max_tokens, "N",
             "Stop after N tokens; 0: no limit but the context.");
  flags->Add("temperature", &options->temperature, "T", "0 is greedy; negative: the model's own.");
  flags->Add("top-p", &options->top_p, "P",
             "Keep the likeliest tokens up to this mass; negative: the model's own.");
  flags->Add("top-k", &options->top_k, "K",
             "Keep the K likeliest tokens; 0: all; negative: the model's own.");
  flags->Add("seed", &options->seed, "SEED",
             "Same seed, same answer; negative: drawn by the server.");
  flags->AddList("stop", &options->stop, "TEXT", "End the answer before this text.");
  flags->Add("json", &options->json, "One JSON object at the end instead of text.");
  AddClientFlags(flags, &options->client);
}

v1::GenerateRequest MakeRequest(const GenerateOptions& options) {
  v1::GenerateRequest request;
  request.set_model(options.model);
  if (options.chat) {
    if (!options.system.empty()) {
      auto* message = request.mutable_chat()->add_messages();
      message->set_role("system");
      message->set_content(options.system);
    }
    auto* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(options.prompt);
  } else {
    request.set_text(options.prompt);
  }
  if (options.max_tokens > 0) {
    request.mutable_stopping()->set_max_tokens(static_cast<int32_t>(options.max_tokens));
  }
  for (const std::string& text : options.stop) request.mutable_stopping()->add_stop(text);
  auto* sampling = request.mutable_sampling();
  if (options.temperature >= 0) sampling->set_temperature(static_cast<float>(options.temperature));
  if (options.top_p >= 0) sampling->set_top_p(static_cast<float>(options.top_p));
  if (options.top_k >= 0) sampling->set_top_k(static_cast<int32_t>(options.top_k));
  if (options.seed >= 0) sampling->set_seed(static_cast<uint64_t>(options.seed));
  return request;
}

void PrintJson(const std::string& text, const v1::GenerateResponse& last) {
  JsonLine line;
  line.Add("model", last.model());
  line.Add("text", text);
  line.Add("finish_reason", v1::FinishReason_Name(last.finish_reason()));
  line.Add("prompt_tokens", last.usage().prompt_tokens());
  line.Add("completion_tokens", last.usage().completion_tokens());
  line.Add("time_to_first_token_ms", last.timing().time_to_first_token_ms());
  line.Add("decode_ms", last.timing().decode_ms());
  line.Add("seed", std::to_string(last.seed()));
  std::printf("%s\n", line.Finish().c_str());
}

}  // namespace

int RunGenerate(const Arguments& args) {
  GenerateOptions options;
  Flags flags("nibble generate --prompt TEXT [flags]",
              "Asks a running server for text and prints it as it comes.");
  AddFlags(&flags, &options);
  int code = 0;
  if (!ParseOrExplain("generate", &flags, args, &code)) return code;
  if (options.prompt.empty()) {
    std::fprintf(stderr, "nibble generate: --prompt is required\n");
    return 2;
  }
  auto channel = Connect(options.client);
  if (!channel.ok()) return ReportFailure("generate", channel.status());
  grpc::ClientContext context;
  if (const absl::Status status = Prepare(options.client, &context); !status.ok()) {
    return ReportFailure("generate", status);
  }
  const auto stub = v1::Inference::NewStub(*channel);
  const auto reader = stub->Generate(&context, MakeRequest(options));
  v1::GenerateResponse response;
  v1::GenerateResponse last;
  std::string text;
  while (reader->Read(&response)) {
    if (options.json) {
      text += response.text();
    } else {
      std::fputs(response.text().c_str(), stdout);
      std::fflush(stdout);
    }
    if (response.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) last = response;
  }
  if (!options.json) std::printf("\n");
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return ReportFailure("generate", status);
  if (options.json) PrintJson(text, last);
  return 0;
}

}  // namespace nibble
