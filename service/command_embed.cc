// `nibble embed`: vectors of some texts from a running server, or how alike the texts are.
#include <cmath>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nibble/v1/inference.grpc.pb.h"
#include "service/client.h"
#include "service/commands.h"
#include "service/json_line.h"

namespace nibble {
namespace {

// Characters (not bytes) of the longest beginning of `text` that fits `width`, for a table's cell.
std::string Cell(const std::string& text, size_t width) {
  std::string out;
  size_t characters = 0;
  for (const char c : text) {
    const bool starts_character = (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    if (starts_character && characters == width) break;
    characters += starts_character ? 1 : 0;
    out += c == '\n' || c == '\t' ? ' ' : c;
  }
  return out + std::string(width - characters, ' ');
}

double Cosine(const v1::Embedding& a, const v1::Embedding& b) {
  double dot = 0, aa = 0, bb = 0;
  for (int i = 0; i < a.values_size(); ++i) {
    const double x = a.values(i), y = b.values(i);
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0 && bb > 0 ? dot / std::sqrt(aa * bb) : 0;
}

void PrintSimilarity(const std::vector<std::string>& texts, const v1::EmbedResponse& response) {
  constexpr size_t kWidth = 36;
  std::printf("%s", std::string(kWidth + 5, ' ').c_str());
  for (size_t i = 0; i < texts.size(); ++i)
    std::printf("%8s", absl::StrCat("(", i + 1, ")").c_str());
  std::printf("\n");
  for (size_t i = 0; i < texts.size(); ++i) {
    std::printf("%3s  %s", absl::StrCat(i + 1).c_str(), Cell(texts[i], kWidth).c_str());
    for (size_t j = 0; j < texts.size(); ++j) {
      std::printf("%8.3f", Cosine(response.embeddings(static_cast<int>(i)),
                                  response.embeddings(static_cast<int>(j))));
    }
    std::printf("\n");
  }
}

void PrintVectors(const std::vector<std::string>& texts, const v1::EmbedResponse& response,
                  bool json) {
  for (int i = 0; i < response.embeddings_size(); ++i) {
    const v1::Embedding& embedding = response.embeddings(i);
    std::string values;
    for (const float value : embedding.values()) {
      absl::StrAppend(&values, values.empty() ? "" : (json ? "," : " "),
                      absl::StrFormat("%.7g", value));
    }
    if (!json) {
      std::printf("%s\n", values.c_str());
      continue;
    }
    JsonLine line;
    line.Add("text", texts[static_cast<size_t>(i)]);
    line.Add("num_tokens", embedding.num_tokens());
    line.Add("truncated", embedding.truncated());
    line.AddRaw("values", absl::StrCat("[", values, "]"));
    std::printf("%s\n", line.Finish().c_str());
  }
}

}  // namespace

int RunEmbed(const Arguments& args) {
  ClientOptions client;
  std::string model, prompt_name;
  std::vector<std::string> prompts;
  bool similarity = false, json = false;
  int32_t dimensions = 0;
  Flags flags("nibble embed --prompt TEXT [--prompt TEXT ...] [flags]",
              "Asks a running server for embeddings: one line of numbers per text, or with "
              "--similarity a table of cosines.");
  flags.Group("Request");
  flags.Add("model", &model, "NAME", "Which model; empty: the only embedding one.");
  flags.AddList("prompt", &prompts, "TEXT", "A text to embed.");
  flags.Add("prompt-name", &prompt_name, "NAME",
            "One of the model's named prompts, put before each text.");
  flags.Add("dimensions", &dimensions, "N", "Keep only the first N values; 0: all.");
  flags.Add("similarity", &similarity, "Print how alike the texts are instead of the vectors.");
  flags.Add("json", &json, "One JSON object per text.");
  AddClientFlags(&flags, &client);
  int code = 0;
  if (!ParseOrExplain("embed", &flags, args, &code)) return code;
  if (prompts.empty()) {
    std::fprintf(stderr, "nibble embed: --prompt is required\n");
    return 2;
  }
  auto channel = Connect(client);
  if (!channel.ok()) return ReportFailure("embed", channel.status());
  grpc::ClientContext context;
  if (const absl::Status status = Prepare(client, &context); !status.ok()) {
    return ReportFailure("embed", status);
  }
  v1::EmbedRequest request;
  request.set_model(model);
  request.set_prompt_name(prompt_name);
  request.set_dimensions(dimensions);
  for (const std::string& text : prompts) request.add_inputs()->set_text(text);
  v1::EmbedResponse response;
  const grpc::Status status = v1::Inference::NewStub(*channel)->Embed(&context, request, &response);
  if (!status.ok()) return ReportFailure("embed", status);
  if (similarity) {
    PrintSimilarity(prompts, response);
  } else {
    PrintVectors(prompts, response, json);
  }
  return 0;
}

}  // namespace nibble
